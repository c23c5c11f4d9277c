//! Values exchanged between the lanes of a warp. Source: PTX ISA, `shfl.sync`, `vote.sync`.

use super::{Fault, FaultKind, step::predicate, warp::Warp};
use crate::ptx::code::{LANES, Lanes, Shuffle, Slot, Vote};

/// `shfl.sync`: each lane reads a from the lane that b and c name, one of its mask; p says whether that lane is in range.
pub(super) fn shuffle(
    warp: &mut Warp,
    lanes: u32,
    how: Shuffle,
    (d, p): (Slot, Option<Slot>),
    from: [Slot; 3],
    mask: Slot,
) -> Result<(), Fault> {
    let [a, b, c] = from.map(|slot| *warp.lanes(slot));
    let masks = *warp.lanes(mask);
    let mut values: Lanes = [0; LANES];
    let mut inside: Lanes = [0; LANES];
    for lane in (0..LANES as i64).filter(|lane| lanes >> lane & 1 == 1) {
        let i = lane as usize;
        let (b, clamp, segment) = ((b[i] & 0x1f) as i64, (c[i] & 0x1f) as i64, (c[i] >> 8 & 0x1f) as i64);
        let most = (lane & segment) | (clamp & !segment & 0x1f);
        let least = lane & segment;
        let (source, within) = match how {
            Shuffle::Up => (lane - b, lane - b >= most),
            Shuffle::Down => (lane + b, lane + b <= most),
            Shuffle::Butterfly => (lane ^ b, (lane ^ b) <= most),
            Shuffle::Index => (least | (b & !segment & 0x1f), (least | (b & !segment & 0x1f)) <= most),
        };
        let source = if within { source } else { lane };
        if (lanes & masks[i] as u32) >> source & 1 == 0 {
            return Err(Fault::new(
                FaultKind::Deadlock,
                format!("lane {lane} reads lane {source}, which takes no part"),
            ));
        }
        values[i] = a[source as usize] & 0xffff_ffff;
        inside[i] = within.into();
    }
    warp.write(d, lanes, &values);
    if let Some(p) = p {
        warp.write(p, lanes, &inside);
    }
    Ok(())
}

/// `vote.sync` among the lanes of each lane's mask, and `activemask`.
pub(super) fn vote(warp: &mut Warp, lanes: u32, how: Vote, d: Slot, (from, negated): (Slot, bool), mask: Slot) {
    let holds = predicate(warp.lanes(from), negated);
    let values = warp.lanes(mask).map(|mask| {
        let among = lanes & mask as u32;
        let set = holds & among;
        match how {
            Vote::All => u64::from(set == among),
            Vote::Any => u64::from(set != 0),
            Vote::Uniform => u64::from(set == among || set == 0),
            Vote::Ballot => set.into(),
            Vote::Active => lanes.into(),
        }
    });
    warp.write(d, lanes, &values);
}
