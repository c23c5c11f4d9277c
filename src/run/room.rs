//! The autoencoder on a device that has less room than was planned: a driver cuts its memory into pieces, and others use the device too.

use candle_core::Device;

use crate::{
    base::progress::{Event, Observer},
    error::Result,
    models::{Banding, Ways},
};

/// Does `work` in the way that was planned, and in ever less memory for as long as the device has no room for it: the result is the
/// same. What an earlier try has given away comes again from the top.
///
/// # Errors
/// What `work` fails with, for want of room where there is no way in less memory; what asking for `ways` and the device fail with.
pub fn in_room<T>(
    planned: &Banding,
    ways: impl Fn() -> Result<Ways>,
    (device, observer): (&Device, &dyn Observer),
    mut work: impl FnMut(&Banding) -> Result<T>,
) -> Result<T> {
    let mut options = planned.clone();
    loop {
        let full = match work(&options) {
            Err(error) if error.is_out_of_memory() => error,
            done => return done,
        };
        // What the try has held is given back.
        device.synchronize()?;
        let ways = ways()?;
        let Some(way) = ways.below(&options)? else { return Err(full) };
        let mb = way.cost.memory_bytes.div_ceil(1_000_000);
        observer.on(Event::Note(format!(
            "the device has less room than was planned for the autoencoder: it begins again in bands of {} rows, in {mb} MB ({full})",
            way.options.band_rows
        )));
        options = way.options.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use candle_core::DType;

    use super::*;
    use crate::{
        base::{device::DeviceKind, geometry::LatentSize},
        error::Error,
        models::parts::{
            kl::{Side, cost},
            kl16,
        },
    };

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Observer for Notes {
        fn on(&self, event: Event) {
            if let Event::Note(text) = event {
                self.0.lock().expect("no panic").push(text);
            }
        }
    }

    /// A full device, as the driver says it.
    fn full() -> Error {
        candle_core::Error::msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")").into()
    }

    const ON: (DeviceKind, DType) = (DeviceKind::Cuda { capability: (8, 9) }, DType::BF16);
    const SIZE: LatentSize = LatentSize { height: 128, width: 128 };

    /// Ways of decoding 1024 px on a card.
    fn ways() -> Ways {
        Ways::new(&kl16(), Side::Decoder, ON, SIZE).expect("FLUX.1's")
    }

    /// Megabytes of each try on a device that has so much room, by what they need, and whether the last was done; with notes.
    fn tries(room_bytes: u64) -> (Vec<u64>, bool, Vec<String>) {
        let (ways, notes, mut tried) = (ways(), Notes::default(), Vec::new());
        let planned = ways.best(u64::MAX).expect("one").options.clone();
        let done = in_room(
            &planned,
            || Ok(ways.clone()),
            (&Device::Cpu, &notes),
            |options| {
                let need = cost(&kl16(), Side::Decoder, ON, SIZE, options)?.memory_bytes;
                tried.push(need / 1_000_000);
                if need <= room_bytes { Ok(()) } else { Err(full()) }
            },
        );
        (tried, done.is_ok(), notes.0.into_inner().expect("no panic"))
    }

    #[test]
    fn the_planned_way_is_taken_where_there_is_room() {
        let (tried, done, notes) = tries(u64::MAX);
        assert!(done && tried.len() == 1 && notes.is_empty(), "{tried:?}, {notes:?}");
    }

    #[test]
    fn a_full_device_gets_less_until_it_has_room() {
        let ways = ways();
        let [most, least] = [ways.best(u64::MAX), ways.least()].map(|way| way.expect("one").cost.memory_bytes);
        let (tried, done, notes) = tries((most + least) / 2);
        assert!(done && tried.len() > 1, "{tried:?}");
        assert!(tried.is_sorted_by(|more, less| less * 5 <= more * 4), "{tried:?}");
        assert_eq!(notes.len(), tried.len() - 1);
        assert!(notes[0].contains(&format!("{} MB", tried[1] + 1)), "{notes:?}, {tried:?}");
    }

    #[test]
    fn where_nothing_is_less_the_device_is_full() {
        let (tried, done, _) = tries(1);
        assert!(!done);
        assert_eq!(tried.last(), ways().least().map(|way| way.cost.memory_bytes / 1_000_000).as_ref());
    }

    #[test]
    fn other_failures_are_not_tried_again() {
        let (ways, mut tries) = (ways(), 0);
        let failed = in_room(
            &Banding::default(),
            || Ok(ways.clone()),
            (&Device::Cpu, &Notes::default()),
            |_| {
                tries += 1;
                Err::<(), _>(Error::model("a damaged file", ""))
            },
        );
        assert!(matches!(failed, Err(Error::Model { .. })) && tries == 1);
    }
}
