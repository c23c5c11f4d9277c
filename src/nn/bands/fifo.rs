//! A queue of bands that is consumed by rows.

use std::collections::VecDeque;

use super::Band;

/// Bands waiting to be consumed from the top.
pub(crate) struct Fifo<R> {
    parts: VecDeque<R>,
    consumed: usize,
}

impl<R: Band> Fifo<R> {
    /// A queue of these bands.
    pub fn new(parts: VecDeque<R>) -> Self {
        Self { parts, consumed: 0 }
    }

    /// Adds a band below.
    pub fn push(&mut self, rows: R) {
        self.parts.push_back(rows);
    }

    /// Forgets the first `rows` rows, and frees the bands that held nothing else.
    pub fn advance(&mut self, rows: usize) {
        self.consumed += rows;
        while let Some(front) = self.parts.front() {
            if front.height() > self.consumed {
                break;
            }
            self.consumed -= front.height();
            self.parts.pop_front();
        }
    }

    /// The first `rows` rows as pieces (band, first row, rows).
    pub fn first(&self, rows: usize) -> Vec<(&R, usize, usize)> {
        let (mut pieces, mut left, mut skip) = (Vec::new(), rows, self.consumed);
        for part in &self.parts {
            let take = left.min(part.height() - skip);
            if take > 0 {
                pieces.push((part, skip, take));
            }
            (left, skip) = (left - take, 0);
            if left == 0 {
                break;
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(usize);
    impl Band for Fake {
        fn height(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn a_queue_gives_rows_across_bands_and_frees_them() {
        let mut queue = Fifo::new([Fake(3), Fake(2)].into());
        queue.push(Fake(4));
        let shape = |q: &Fifo<Fake>, n| q.first(n).iter().map(|(b, s, t)| (b.0, *s, *t)).collect::<Vec<_>>();
        assert_eq!(shape(&queue, 4), [(3, 0, 3), (2, 0, 1)]);
        queue.advance(4);
        assert_eq!(queue.parts.len(), 2);
        assert_eq!(shape(&queue, 5), [(2, 1, 1), (4, 0, 4)]);
    }
}
