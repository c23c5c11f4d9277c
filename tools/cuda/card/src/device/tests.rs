//! Streams in every order: what is ordered by events is right in all of them, what is not is caught in some.

use super::{Device, card::Settings, result, work::Work};

const BYTES: u64 = 256;

fn device(seed: u64) -> Device {
    Device::new(Settings::new(|name| (name == "CARD_SEED").then(|| seed.to_string())).unwrap())
}

/// One stream sends numbers, another copies them on, the first sends others into the same place. With both events, each
/// way of running the streams gives the same; without one of them, some do not.
fn pass(seed: u64, filled: bool, used: bool) -> Result<Vec<u8>, u32> {
    let mut device = device(seed);
    let (copies, kernels) = (device.new_stream(false), device.new_stream(false));
    let (there, free) = (device.new_event(), device.new_event());
    let room = device.allocate(copies, BYTES)?;
    let out = device.allocate(kernels, 4 * BYTES)?;
    for turn in 0..4 {
        if used {
            device.wait(copies, free)?;
        }
        device.ask(copies, Work::UploadStaged { to: room, from: vec![turn + 1; BYTES as usize] })?;
        device.record(there, copies)?;
        if filled {
            device.wait(kernels, there)?;
        }
        let to = out + u64::from(turn) * BYTES;
        device.ask(kernels, Work::Copy { to, from: room, bytes: BYTES as usize })?;
        device.record(free, kernels)?;
    }
    device.synchronise()?;
    let bytes = device.memory.slice(out, 4 * BYTES as usize).map_err(|fault| {
        device.broken.unwrap_or_else(|| {
            eprintln!("{fault}");
            result::ILLEGAL_ADDRESS
        })
    })?;
    Ok(bytes.to_vec())
}

#[test]
fn two_events_make_every_order_the_same_and_one_does_not() {
    let right: Vec<u8> = (1..=4).flat_map(|turn| [turn; BYTES as usize]).collect();
    assert!((0..200).all(|seed| pass(seed, true, true).as_ref() == Ok(&right)));
    let wrong = |filled, used| (0..200).filter(|seed| pass(*seed, filled, used).as_ref() != Ok(&right)).count();
    assert!(wrong(false, true) > 50, "kernels that do not wait for their weights");
    assert!(wrong(true, false) > 50, "copies that do not wait for the kernels before");
}

#[test]
fn memory_freed_on_one_stream_is_gone_for_another() {
    let found = (0..200).filter(|seed| {
        let mut device = device(*seed);
        let (a, b) = (device.new_stream(false), device.new_stream(false));
        let at = device.allocate(a, BYTES).unwrap();
        let other = device.allocate(b, BYTES).unwrap();
        device.ask(a, Work::Set { to: at, value: 1, bytes: 8 }).unwrap();
        device.synchronise().unwrap();
        let result = device.ask(b, Work::Copy { to: other, from: at, bytes: 8 });
        let result = result.and_then(|()| device.free(Some(a), at)).and_then(|()| device.synchronise());
        result == Err(result::ILLEGAL_ADDRESS)
    });
    assert!(found.count() > 20);
}

#[test]
fn a_fault_is_what_every_later_call_says() {
    let mut device = device(1);
    let stream = device.new_stream(false);
    let _ = device.ask_and_wait(stream, Work::Set { to: 64, value: 0, bytes: 4 });
    assert_eq!(device.synchronise(), Err(result::ILLEGAL_ADDRESS));
    assert_eq!(device.allocate(stream, 4), Err(result::ILLEGAL_ADDRESS));
    assert_eq!(device.free(None, 0), Err(result::ILLEGAL_ADDRESS));
}

#[test]
fn more_than_the_card_holds_is_refused() {
    let read = |name: &str| (name == "CARD_MEMORY_MIB").then(|| "8192".to_owned());
    let mut device = Device::new(Settings::new(read).unwrap());
    let stream = device.new_stream(false);
    let first = device.allocate(stream, 7 << 30).unwrap();
    assert_eq!(device.allocate(stream, 1 << 30), Err(result::OUT_OF_MEMORY));
    device.free(Some(stream), first).unwrap();
    device.allocate(stream, 7 << 30).unwrap();
    let (free, total) = device.memory_info();
    assert_eq!(total, 8 << 30);
    assert!(free < 1 << 30);
}

#[test]
fn kernels_for_newer_cards_are_not_loaded() {
    let read = |name: &str| (name == "CARD").then(|| "t4".to_owned());
    let mut device = Device::new(Settings::new(read).unwrap());
    assert_eq!(device.load_module(".version 8.0\n.target sm_90\n"), Err(result::INVALID_PTX));
    assert!(device.load_module(".version 8.0\n.target sm_75\n").is_ok());
}
