//! What was counted, as JSON: memory, kernels, and how far copies and kernels went side by side.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    Device,
    run::{Engine, Kind},
};
use crate::machine::Counts;

/// A kernel's total.
#[derive(Debug, Default, Clone, Copy)]
struct Total {
    launches: u64,
    threads: u64,
    /// The most threads of a launch, or numbers that it wrote, if those are more.
    most: u64,
    counts: Counts,
    seconds: f64,
}

/// Everything counted so far.
#[derive(Debug, Default)]
pub struct Report {
    kernels: BTreeMap<String, Total>,
    /// Bytes allocated at most.
    pub(super) most_used: u64,
    /// Bytes mapped at most.
    pub(super) most_mapped: u64,
    /// Bytes that the variables of modules take, in pages.
    pub(super) modules: u64,
    /// Allocations that did not fit: their bytes, what was allocated then, what was free.
    pub(super) refused: Vec<(u64, u64, u64)>,
    /// Copies to the host, which divide a run.
    marks: Vec<Mark>,
    taken: Taken,
    compute: Line,
    uploads: Line,
    /// Of the uploads those from pinned memory: streamed weights.
    streamed: Line,
    downloads: Line,
}

/// Seconds so far by what they went to.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    products: f64,
    attention: f64,
    passes: f64,
    uploads: f64,
}

/// A copy to the host.
#[derive(Debug, Clone, Copy)]
struct Mark {
    end: f64,
    bytes: usize,
    /// What everything until then took.
    taken: Taken,
    /// Bytes allocated and mapped at most since the mark before.
    most: (u64, u64),
}

/// When an engine was busy: periods in order, none of which touch.
#[derive(Debug, Default)]
struct Line {
    busy: Vec<(f64, f64)>,
}

impl Line {
    /// Busy for so long from `begin` on, or as soon as there is time for it; gives the end. The host's threads run ahead of the
    /// device each at its own pace, so what is asked for later may come earlier.
    fn add(&mut self, begin: f64, seconds: f64) -> f64 {
        let mut at = self.busy.partition_point(|busy| busy.1 < begin);
        let mut start = begin;
        while let Some(busy) = self.busy.get(at).filter(|busy| busy.0 < start + seconds) {
            start = start.max(busy.1);
            at += 1;
        }
        let end = start + seconds;
        if at > 0 && self.busy[at - 1].1 >= start {
            self.busy[at - 1].1 = end;
            if self.busy.get(at).is_some_and(|next| next.0 <= end) {
                self.busy[at - 1].1 = self.busy.remove(at).1;
            }
        } else {
            self.busy.insert(at, (start, end));
        }
        end
    }

    fn until(&self) -> f64 {
        self.busy.last().map_or(0.0, |busy| busy.1)
    }

    /// Busy from its first second to its last.
    fn whole(&self) -> Self {
        Self { busy: self.busy.first().map(|first| (first.0, self.until())).into_iter().collect() }
    }

    fn seconds(&self) -> f64 {
        self.busy.iter().map(|(begin, end)| end - begin).sum()
    }

    /// Seconds in which both were busy.
    fn beside(&self, other: &Self) -> f64 {
        let (mut at, mut both) = (0, 0.0);
        for (begin, end) in &self.busy {
            while other.busy.get(at).is_some_and(|busy| busy.1 <= *begin) {
                at += 1;
            }
            let meets = other.busy[at.min(other.busy.len())..].iter().take_while(|busy| busy.0 < *end);
            both += meets.map(|busy| busy.1.min(*end) - busy.0.max(*begin)).sum::<f64>();
        }
        both
    }
}

impl Mark {
    /// As a row: end, bytes; seconds of products, attention, passes and uploads until then; bytes allocated and mapped.
    fn json(&self) -> String {
        let Self { end, bytes, taken: Taken { products, attention, passes, uploads }, most: (used, mapped) } = self;
        format!("[{end:.6}, {bytes}, {products:.6}, {attention:.6}, {passes:.6}, {uploads:.6}, {used}, {mapped}]")
    }
}

impl Report {
    /// An engine is busy for so long from `begin` on, or as soon as it is free; gives the end.
    pub(super) fn busy(&mut self, engine: Engine, begin: f64, seconds: f64) -> f64 {
        match engine {
            Engine::Compute(kind) => {
                *match kind {
                    Kind::Product => &mut self.taken.products,
                    Kind::Attention => &mut self.taken.attention,
                    Kind::Pass => &mut self.taken.passes,
                } += seconds;
                self.compute.add(begin, seconds)
            }
            Engine::Uploads { pinned } => {
                self.taken.uploads += seconds;
                let end = self.uploads.add(begin, seconds);
                if pinned {
                    self.streamed.add(end - seconds, seconds);
                }
                end
            }
            Engine::Downloads => self.downloads.add(begin, seconds),
            Engine::None => begin,
        }
    }

    /// A copy to the host ended, when since the one before so much was allocated and mapped at most.
    pub(super) fn downloaded(&mut self, end: f64, bytes: usize, most: (u64, u64)) {
        self.marks.push(Mark { end, bytes, taken: self.taken, most });
    }

    /// A kernel ran.
    pub(super) fn kernel(&mut self, name: &str, threads: u64, counts: Counts, seconds: f64) {
        if !self.kernels.contains_key(name) {
            self.kernels.insert(name.to_owned(), Total::default());
        }
        if let Some(total) = self.kernels.get_mut(name) {
            total.launches += 1;
            total.threads += threads;
            total.most = total.most.max(threads).max(counts.stored);
            total.counts.add(counts, 1);
            total.seconds += seconds;
        }
    }

    /// The report as JSON.
    fn json(&self, device: &Device) -> String {
        let mut out = String::from("{\n");
        let card = device.settings.card;
        let end = self.compute.until().max(self.uploads.until()).max(self.downloads.until());
        let launches: u64 = self.kernels.values().map(|total| total.launches).sum();
        // Writing to a string never fails.
        let _ = writeln!(out, "  \"card\": \"{}\", \"card_bytes\": {},", card.name, card.bytes);
        let _ = writeln!(out, "  \"fault\": {},", device.broken.unwrap_or(0));
        let _ = writeln!(
            out,
            "  \"used_bytes\": {}, \"most_used_bytes\": {}, \"most_mapped_bytes\": {}, \"maps\": {},",
            device.pool.used, device.pool.most_used, device.pool.most_mapped, device.pool.maps
        );
        let _ = writeln!(out, "  \"module_bytes\": {}, \"blas_bytes\": {},", self.modules, card.blas_workspace);
        let refused: Vec<_> = self.refused.iter().map(|(a, b, c)| format!("[{a}, {b}, {c}]")).collect();
        let _ = writeln!(out, "  \"refused\": [{}],", refused.join(", "));
        let _ = writeln!(
            out,
            "  \"seconds\": {end:.6}, \"compute_seconds\": {:.6}, \"upload_seconds\": {:.6},",
            self.compute.seconds(),
            self.uploads.seconds()
        );
        let _ = writeln!(
            out,
            "  \"streamed\": {{\"seconds\": {:.6}, \"compute_seconds\": {:.6}, \"beside_compute_seconds\": {:.6}}},",
            self.streamed.seconds(),
            self.compute.beside(&self.streamed.whole()),
            self.streamed.beside(&self.compute)
        );
        let _ =
            writeln!(out, "  \"downloads\": [{}],", self.marks.iter().map(Mark::json).collect::<Vec<_>>().join(", "));
        let _ = writeln!(out, "  \"launches\": {launches},");
        let _ = writeln!(out, "  \"kernels\": {{");
        let rows: Vec<_> = self.kernels.iter().map(|(name, total)| {
            let Counts { read, written, stored, flops, product_flops, float8_flops, instructions } = total.counts;
            format!(
                "    \"{name}\": {{\"launches\": {}, \"threads\": {}, \"most_elements\": {}, \"read\": {read}, \"written\": {written}, \"stored\": {stored}, \"flops\": {flops}, \"product_flops\": {product_flops}, \"float8_flops\": {float8_flops}, \"instructions\": {instructions}, \"seconds\": {:.9}}}",
                total.launches, total.threads, total.most, total.seconds
            )
        }).collect();
        let _ = writeln!(out, "{}\n  }}\n}}", rows.join(",\n"));
        out
    }
}

impl Device {
    /// Writes the report where the settings say.
    pub fn write_report(&self) {
        let Some(path) = &self.settings.report else { return };
        if let Err(error) = std::fs::write(path, self.report.json(self)) {
            eprintln!("card: cannot write {path}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_side_by_side_is_counted_once() {
        let (mut kernels, mut copies) = (Line::default(), Line::default());
        kernels.add(0.0, 2.0);
        kernels.add(1.0, 2.0);
        kernels.add(10.0, 5.0);
        copies.add(1.0, 1.0);
        copies.add(3.0, 8.0);
        assert_eq!((kernels.seconds(), copies.seconds()), (9.0, 9.0));
        assert_eq!(copies.beside(&kernels), 1.0 + 1.0 + 1.0);
        assert_eq!(kernels.beside(&copies.whole()), 3.0 + 1.0);
    }

    #[test]
    fn what_is_asked_for_later_runs_earlier_where_there_is_time_for_it() {
        let mut copies = Line::default();
        assert_eq!(copies.add(10.0, 1.0), 11.0);
        assert_eq!(copies.add(1.0, 2.0), 3.0);
        assert_eq!(copies.add(2.0, 7.0), 10.0, "just fits");
        assert_eq!(copies.busy, [(1.0, 11.0)]);
        assert_eq!(copies.add(0.5, 1.0), 12.0, "no time before");
        assert_eq!((copies.add(0.0, 0.5), copies.seconds()), (0.5, 11.5));
    }
}
