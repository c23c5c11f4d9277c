//! Operations executed, in an order that only what was promised restricts, and the time they would take on the card.

use super::{Device, result, work::Work};
use crate::{
    libraries::gemm::Gemm,
    machine::{Counts, Fault, Launch},
};

/// Seconds that starting a kernel takes at least, on the device.
const LAUNCH: f64 = 2e-6;

/// Which of the card's engines an operation keeps busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// Kernels, and copies and clearing within the device.
    Compute(Kind),
    /// Copies from the host; from pinned memory, beside which kernels may run, or not.
    Uploads { pinned: bool },
    /// Copies to the host.
    Downloads,
    /// None.
    None,
}

/// What a kernel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A product of matrices.
    Product,
    /// Attention in one kernel.
    Attention,
    /// Anything that reads numbers and writes as many.
    Pass,
}

impl Kind {
    /// Of a kernel of this name.
    fn of(kernel: &str) -> Self {
        match kernel {
            _ if kernel.starts_with("attention") => Self::Attention,
            _ if kernel.starts_with("product") => Self::Product,
            _ => Self::Pass,
        }
    }
}

impl Device {
    fn roll(&mut self, sides: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) % sides.max(1)
    }

    /// Lets streams run between two calls: to the end where there is no seed, else as far as chance has it. Some seeds run
    /// next to nothing before somebody waits, others nearly everything.
    pub(super) fn drift(&mut self) -> Result<(), u32> {
        let Some(seed) = self.settings.seed else { return self.run_until(|device| device.streams.waiting() == 0) };
        let steps = match seed % 4 {
            0 => 0,
            1 => self.roll(2),
            2 => self.roll(4),
            _ => u64::from(self.roll(64) == 0) * self.roll(200),
        };
        for _ in 0..steps {
            if !self.run_one()? {
                break;
            }
        }
        Ok(())
    }

    /// Runs until `done` holds.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), u32> {
        while !done(self) {
            if !self.run_one()? {
                eprintln!("card: {} operations wait for each other", self.streams.waiting());
                self.broken = Some(result::LAUNCH_FAILED);
                return Err(result::LAUNCH_FAILED);
            }
        }
        Ok(())
    }

    /// Waits for a stream.
    ///
    /// # Errors
    /// The code of a fault.
    pub fn synchronise_stream(&mut self, handle: u64) -> Result<(), u32> {
        self.sound()?;
        let stream = self.stream(handle);
        let asked = self.streams.asked(stream);
        self.run_until(|device| device.streams.done(stream, asked))?;
        self.waited(self.streams.clock(stream));
        self.settle();
        Ok(())
    }

    /// Waits for everything.
    ///
    /// # Errors
    /// The code of a fault.
    pub fn synchronise(&mut self) -> Result<(), u32> {
        self.sound()?;
        self.run_until(|device| device.streams.waiting() == 0)?;
        self.waited(self.streams.last_clock());
        self.settle();
        Ok(())
    }

    /// Waits for an event.
    ///
    /// # Errors
    /// The code of a fault.
    pub fn synchronise_event(&mut self, event: u64) -> Result<(), u32> {
        self.sound()?;
        self.run_until(|device| device.event_reached(event))?;
        self.waited(self.streams.event_clock(event));
        self.settle();
        Ok(())
    }

    /// At a synchronisation the pool gives back what nobody uses.
    fn settle(&mut self) {
        let streams = &self.streams;
        self.pool.synchronised(|stream, number| streams.done(stream, number));
        self.report.most_used = self.pool.most_used;
        self.report.most_mapped = self.pool.most_mapped;
    }

    /// Runs one operation of those that may; false where none may.
    fn run_one(&mut self) -> Result<bool, u32> {
        let ready = self.streams.ready();
        if ready.is_empty() {
            return Ok(false);
        }
        let chosen = match self.settings.seed {
            None => 0,
            Some(_) => self.roll(ready.len() as u64) as usize,
        };
        let stream = ready[chosen];
        let Some((work, begin)) = self.streams.take(stream) else { return Ok(false) };
        match self.execute(&work) {
            Ok((engine, seconds)) => {
                let end = self.report.busy(engine, begin, seconds);
                if self.settings.trace && engine != Engine::None {
                    eprintln!("card: on {stream:#x} until {end:.6} for {seconds:.6} s, not before {begin:.6}");
                }
                match work {
                    Work::Record { event, recording } => self.streams.reach(event, recording, end),
                    Work::Download { bytes, .. } => self.report.downloaded(end, bytes, self.pool.recent()),
                    _ => {}
                }
                self.streams.finish(stream, end);
                Ok(true)
            }
            Err(fault) => Err(self.breaks(&fault)),
        }
    }

    /// Executes an operation; gives the engine it keeps busy and the seconds it would take.
    fn execute(&mut self, work: &Work) -> Result<(Engine, f64), Fault> {
        let card = self.settings.card;
        let moved = |bytes: usize| (Engine::Compute(Kind::Pass), LAUNCH + 2.0 * bytes as f64 / card.bandwidth);
        let upload = |to: u64, from: &[u8], pinned: bool| {
            self.memory.upload(to, from).map(|()| (Engine::Uploads { pinned }, from.len() as f64 / card.pcie))
        };
        match work {
            Work::Launch { kernel, grid, block, shared, parameters } => {
                let launch = Launch {
                    kernel,
                    grid: *grid,
                    block: *block,
                    dynamic_shared: *shared,
                    parameters,
                    seed: self.settings.seed.unwrap_or(0),
                };
                self.launch(&launch)
            }
            Work::Gemm(gemm) => self.product(gemm),
            Work::Upload { to, from, bytes } => {
                // SAFETY: the program keeps its memory until the copy is done, as it must on a card.
                let from = unsafe { std::slice::from_raw_parts(from.0, *bytes) };
                upload(*to, from, self.is_pinned(from.as_ptr() as u64, *bytes))
            }
            Work::UploadStaged { to, from } => upload(*to, from, false),
            Work::Download { to, from, bytes } => {
                // SAFETY: as above.
                let to = unsafe { std::slice::from_raw_parts_mut(to.0, *bytes) };
                self.memory.download(*from, to)?;
                Ok((Engine::Downloads, *bytes as f64 / card.pcie))
            }
            Work::Copy { to, from, bytes } => self.memory.copy(*to, *from, *bytes).map(|()| moved(*bytes)),
            Work::Set { to, value, bytes } => self.memory.set(*to, *value, *bytes).map(|()| moved(*bytes / 2)),
            Work::Allocate { at, bytes } => {
                self.memory.allocate(*at, *bytes);
                Ok((Engine::None, 0.0))
            }
            Work::Free { at } => self.memory.free(*at).map(|()| (Engine::None, 0.0)),
            _ => Ok((Engine::None, 0.0)),
        }
        .map_err(|fault| fault.within(&format!("{work:?}")))
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(Engine, f64), Fault> {
        let counts = match self.settings.shapes {
            true => self.sampled(launch)?,
            false => launch.run(&self.memory)?,
        };
        let threads = launch.blocks() * launch.block.iter().map(|n| u64::from(*n)).product::<u64>();
        let name = &launch.kernel.name;
        Ok(self.counted((name, Kind::of(name)), threads, counts))
    }

    fn product(&mut self, gemm: &Gemm) -> Result<(Engine, f64), Fault> {
        gemm.run(&self.memory, self.settings.shapes)?;
        let (read, written) = (gemm.bytes_read(), gemm.bytes_written());
        let (flops, product_flops) = if gemm.is_half() { (0, gemm.flops()) } else { (gemm.flops(), 0) };
        let counts = Counts { read, written, stored: gemm.outputs(), flops, product_flops, ..Counts::default() };
        Ok(self.counted((gemm.name(), Kind::Product), gemm.outputs(), counts))
    }

    /// Reports a kernel, and gives its roofline: what its bytes take, or its operations, or its products.
    fn counted(&mut self, (name, kind): (&str, Kind), threads: u64, counts: Counts) -> (Engine, f64) {
        let card = self.settings.card;
        let bytes = (counts.read + counts.written) as f64 / card.bandwidth;
        let operations = counts.flops as f64 / card.single_flops;
        let mut products = counts.product_flops as f64 / card.half_flops;
        if counts.float8_flops > 0 {
            products += counts.float8_flops as f64 / card.float8_flops;
        }
        let seconds = LAUNCH + bytes.max(operations).max(products);
        self.report.kernel(name, threads, counts, seconds);
        (Engine::Compute(kind), seconds)
    }
}
