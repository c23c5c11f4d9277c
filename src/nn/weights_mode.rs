//! Where the weights of a network's blocks live.

/// Where the weights of the blocks live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsMode {
    /// All on the device, from the start to the end.
    Resident,
    /// So many of them on the device, from the start to the end, spread evenly among the others, which come as with
    /// [`WeightsMode::Stream`]: a block that travels has the time of those that stay beside it.
    Part {
        /// Blocks that stay.
        stay: usize,
    },
    /// Few: the one that computes and the one that is being read; on CUDA the places of a ring, which stay.
    Stream,
}

impl WeightsMode {
    /// Whether block `index` of so many stays on the device.
    pub(super) fn stays(self, index: usize, count: usize) -> bool {
        let travel = match self {
            Self::Resident => 0,
            Self::Part { stay } => count - stay.min(count),
            Self::Stream => count,
        };
        // Those that travel are the steps of a line from none to all of them.
        (index + 1) * travel / count == index * travel / count
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Part { .. } => "part",
            Self::Stream => "stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_is_spread_among_what_stays() {
        let travel =
            |mode: WeightsMode, count| (0..count).filter(|index| !mode.stays(*index, count)).collect::<Vec<_>>();
        assert_eq!(travel(WeightsMode::Resident, 4), [0; 0]);
        assert_eq!(travel(WeightsMode::Stream, 4), [0, 1, 2, 3]);
        assert_eq!(travel(WeightsMode::Part { stay: 6 }, 9), [2, 5, 8]);
        assert_eq!(travel(WeightsMode::Part { stay: 1 }, 3), [1, 2]);
        assert_eq!(travel(WeightsMode::Part { stay: 9 }, 3), [0; 0]);
        for stay in 0..=57 {
            assert_eq!(travel(WeightsMode::Part { stay }, 57).len(), 57 - stay);
        }
    }
}
