//! The Mersenne Twister of PyTorch's CPU generator: mt19937 of Matsumoto and Nishimura, "Mersenne Twister: a
//! 623-dimensionally equidistributed uniform pseudo-random number generator" (1998), as in `at::mt19937`.

/// Words of state, n.
const STATE_WORDS: usize = 624;
/// Distance of the word that is mixed in, m.
const SHIFT_WORDS: usize = 397;
/// The twist matrix's last row, a.
const MATRIX: u32 = 0x9908_b0df;
/// Multiplier of the seeding recurrence (Knuth, The Art of Computer Programming, volume 2, 3rd edition, p. 106).
const SEED_MULTIPLIER: u32 = 1_812_433_253;

/// A stream of 32-bit words.
pub struct Mt19937 {
    state: [u32; STATE_WORDS],
    next: usize,
}

impl Mt19937 {
    /// The stream of a seed. PyTorch keeps the lower 32 bits of it and drops the others.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; STATE_WORDS];
        let mut word = seed as u32;
        for (i, slot) in state.iter_mut().enumerate() {
            if i > 0 {
                word = SEED_MULTIPLIER.wrapping_mul(word ^ (word >> 30)).wrapping_add(i as u32);
            }
            *slot = word;
        }
        Self { state, next: STATE_WORDS }
    }

    /// The next word.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == STATE_WORDS {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Two words as one, the first one above (`make64BitsFrom32Bits`).
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    fn twist(&mut self) {
        for i in 0..STATE_WORDS {
            let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE_WORDS] & 0x7fff_ffff);
            let odd = if mixed & 1 == 1 { MATRIX } else { 0 };
            self.state[i] = self.state[(i + SHIFT_WORDS) % STATE_WORDS] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_thousandth_word_is_the_one_the_cpp_standard_requires() {
        // [rand.predef] of the C++ standard: the 10000th invocation of a default-constructed std::mt19937.
        let mut stream = Mt19937::new(5489);
        let last = (0..10_000).map(|_| stream.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn bits_of_the_seed_above_the_32nd_are_dropped() {
        assert_eq!(Mt19937::new(3).next_u64(), Mt19937::new((7 << 32) + 3).next_u64());
        assert_ne!(Mt19937::new(3).next_u64(), Mt19937::new(4).next_u64());
    }
}
