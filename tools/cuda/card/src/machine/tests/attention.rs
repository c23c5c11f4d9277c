//! The program's own attention for CUDA, as it is compiled, against plain attention in f64.

use crate::{
    device::memory::{BASE, Memory},
    float::{BF16, F16, Rounding},
    machine::{Counts, Fault, FaultKind, Launch},
    ptx,
};

const PTX: &str = include_str!("../../../../../../src/nn/kernels/flash/attention.ptx");

const Q: u64 = BASE + 0x10_0000;
const K: u64 = BASE + 0x200_0000;
const V: u64 = BASE + 0x400_0000;
const OUT: u64 = BASE + 0x600_0000;
/// Queries of a block.
const QUERIES: usize = 128;
/// Runs of keys that a launch can tell apart.
const RUNS: usize = 8;

/// One attention.
#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    bf16: bool,
    dim: usize,
    heads: usize,
    /// Heads that share one of k and v.
    sharing: usize,
    queries: usize,
    keys: usize,
    causal: bool,
    /// Of so many keys, what is added.
    runs: &'a [(usize, f32)],
    /// Logits reach about this.
    logits: f64,
    seed: u64,
}

const PLAIN: Case<'static> = Case {
    bf16: true,
    dim: 64,
    heads: 1,
    sharing: 1,
    queries: 150,
    keys: 200,
    causal: false,
    runs: &[],
    logits: 3.0,
    seed: 0,
};

impl Case<'_> {
    fn format(&self) -> crate::float::Format {
        if self.bf16 { BF16 } else { F16 }
    }

    /// Numbers of this type in [-most, most], as f64 and as bytes.
    fn numbers(&self, count: usize, most: f64, state: &mut u64) -> (Vec<f64>, Vec<u8>) {
        let bits = (0..count).map(|_| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (*state >> 11) as f64 / (1u64 << 53) as f64;
            self.format().round(most * (2.0 * unit - 1.0), Rounding::Nearest)
        });
        let bits: Vec<_> = bits.collect();
        let bytes = bits.iter().flat_map(|bits| (*bits as u16).to_le_bytes()).collect();
        (bits.iter().map(|bits| self.format().widen(*bits)).collect(), bytes)
    }

    fn bias(&self, key: usize) -> f64 {
        let mut end = 0;
        for (count, bias) in self.runs {
            end += count;
            if key < end {
                return f64::from(*bias);
            }
        }
        0.0
    }

    /// What is no array, as the kernel's struct has it.
    fn how(&self, [q_head, k_head]: [usize; 2]) -> Vec<u8> {
        let row = self.dim as i64;
        let strides = [q_head as i64, row, k_head as i64, row, k_head as i64, row];
        let ends: Vec<_> = self
            .runs
            .iter()
            .scan(0, |end, run| {
                *end += run.0 as i32;
                Some(*end)
            })
            .collect();
        let in_base_2 = |factor: f64| (factor * std::f64::consts::LOG2_E) as f32;
        let counts = [self.queries, self.keys, self.sharing, usize::from(self.causal)].map(|count| count as i32);
        let padded = |index: usize| ends.get(index).copied().unwrap_or(0);
        let bias = |index: usize| self.runs.get(index).map_or(0.0, |run| in_base_2(run.1.into()));
        let mut bytes: Vec<u8> = strides.iter().flat_map(|stride| stride.to_le_bytes()).collect();
        bytes.extend(counts.iter().chain([&ends.last().copied().unwrap_or(0)]).flat_map(|count| count.to_le_bytes()));
        bytes.extend(in_base_2(1.0 / (self.dim as f64).sqrt()).to_le_bytes());
        bytes.extend((0..RUNS).flat_map(|index| padded(index).to_le_bytes()));
        bytes.extend((0..RUNS).flat_map(|index| bias(index).to_le_bytes()));
        bytes
    }

    /// Runs it as it is compiled; gives the largest error in shares of what is allowed, and what it took.
    fn run(&self) -> Result<(f64, Counts), Fault> {
        self.run_of(PTX)
    }

    fn run_of(&self, text: &str) -> Result<(f64, Counts), Fault> {
        let Self { dim, heads, queries, keys, .. } = *self;
        let groups = heads / self.sharing;
        // Between heads lies what is nobody's, and never written.
        let (q_head, k_head) = (queries * dim + 8, keys * dim + 16);
        let mut memory = Memory::new(false);
        let mut state = self.seed ^ 0x5eed;
        let most = (self.logits / (dim as f64).sqrt()).sqrt() * 1.7;
        let mut upload = |at: u64, heads: usize, (rows, stride): (usize, usize), most: f64| {
            memory.allocate(at, 2 * ((heads - 1) * stride + rows * dim));
            let of_heads = (0..heads).map(|head| {
                let (numbers, bytes) = self.numbers(rows * dim, most, &mut state);
                memory.upload(at + 2 * (head * stride) as u64, &bytes).map(|()| numbers)
            });
            of_heads.collect::<Result<Vec<_>, _>>()
        };
        let q = upload(Q, heads, (queries, q_head), most)?;
        let k = upload(K, groups, (keys, k_head), most)?;
        let v = upload(V, groups, (keys, k_head), 2.0)?;
        memory.allocate(OUT, 2 * queries * heads * dim);
        let name = format!("attention_{}_{dim}", if self.bf16 { "bf16" } else { "f16" });
        let module = ptx::parse(text).unwrap();
        let kernel = ptx::lower(&module, &name, &ptx::Globals::new()).unwrap();
        let mut parameters: Vec<u8> = [Q, K, V, OUT].iter().flat_map(|at| at.to_le_bytes()).collect();
        parameters.extend(self.how([q_head, k_head]));
        assert_eq!(parameters.len(), kernel.parameter_bytes());
        let launch = Launch {
            kernel: &kernel,
            grid: [queries.div_ceil(QUERIES) as u32, heads as u32, 1],
            block: [256, 1, 1],
            dynamic_shared: 0,
            parameters: &parameters,
            seed: self.seed,
        };
        let counts = launch.run(&memory)?;
        let out = memory.slice(OUT, 2 * queries * heads * dim)?;
        let worst = (0..heads).map(|head| {
            let group = head / self.sharing;
            (0..queries)
                .map(|row| {
                    self.worst(
                        &q[head][row * dim..][..dim],
                        &k[group],
                        &v[group],
                        row,
                        &out[2 * (row * heads + head) * dim..],
                    )
                })
                .fold(0.0, f64::max)
        });
        Ok((worst.fold(0.0, f64::max), counts))
    }

    /// The largest error of a row of the output. Weights and the result are rounded to the type, half a unit each; sums and
    /// logits are of f32.
    fn worst(&self, q: &[f64], k: &[f64], v: &[f64], row: usize, out: &[u8]) -> f64 {
        let dim = self.dim;
        let seen = if self.causal { self.keys.min(row + 1) } else { self.keys };
        let logit = |key: usize| {
            let dot: f64 = q.iter().zip(&k[key * dim..]).map(|(q, k)| q * k).sum();
            dot / (dim as f64).sqrt() + self.bias(key)
        };
        let logits: Vec<_> = (0..seen).map(logit).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<_> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let half_unit = 0.5f64.powi(self.format().fraction as i32 + 1);
        let error = |channel: usize| {
            let weighed = weights.iter().enumerate().map(|(key, weight)| weight / sum * v[key * dim + channel]);
            let (want, size) = weighed.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let bits = u64::from(u16::from_le_bytes([out[2 * channel], out[2 * channel + 1]]));
            let found = self.format().widen(bits);
            let allowed = half_unit * (size + want.abs()) + 2e-5 * (1.0 + self.logits) * size + 1e-7;
            if found.is_finite() { (found - want).abs() / allowed } else { f64::INFINITY }
        };
        (0..dim).map(error).fold(0.0, f64::max)
    }

    fn holds(&self) {
        let (worst, _) = self.run().unwrap_or_else(|fault| panic!("{self:?}: {fault}"));
        assert!(worst <= 1.0, "{self:?}: {worst} of what rounding explains");
    }
}

const EACH: [(bool, usize); 6] = [(true, 32), (true, 64), (true, 128), (false, 32), (false, 64), (false, 128)];

#[test]
fn every_type_and_width_is_plain_attention() {
    for (bf16, dim) in EACH {
        Case { bf16, dim, heads: 2, ..PLAIN }.holds();
    }
}

#[test]
fn any_number_of_queries_and_keys() {
    for (queries, keys) in [(1, 1), (1, 200), (16, 64), (17, 65), (128, 128), (129, 63), (70, 1)] {
        Case { queries, keys, ..PLAIN }.holds();
    }
}

#[test]
fn runs_of_keys_have_a_bias() {
    // Within a tile, at its border, over several; the rest have none.
    for runs in
        [&[(77, 0.9)][..], &[(64, -2.0)], &[(10, 1.0), (0, 5.0), (60, -1.0), (1, 4.0), (100, 0.25)], &[(200, 80.0)]]
    {
        Case { runs, ..PLAIN }.holds();
        Case { runs, bf16: false, dim: 32, queries: 20, ..PLAIN }.holds();
    }
}

#[test]
fn large_logits_stay_exact() {
    for (bf16, dim) in EACH {
        Case { bf16, dim, logits: 80.0, queries: 40, ..PLAIN }.holds();
    }
}

#[test]
fn a_query_looks_at_no_key_behind_it_where_that_is_asked() {
    for (queries, keys) in [(150, 200), (130, 130), (150, 90), (1, 1), (65, 70)] {
        Case { causal: true, queries, keys, heads: 4, sharing: 2, dim: 32, ..PLAIN }.holds();
    }
    Case { causal: true, dim: 128, runs: &[(30, 1.5)], ..PLAIN }.holds();
}

#[test]
fn heads_share_keys_and_values() {
    Case { heads: 6, sharing: 3, queries: 20, keys: 70, ..PLAIN }.holds();
}

#[test]
fn the_order_of_warps_changes_nothing() {
    for seed in 1..6 {
        Case { seed, keys: 300, ..PLAIN }.holds();
        Case { seed, dim: 128, causal: true, ..PLAIN }.holds();
    }
}

#[test]
fn scores_never_leave_the_chip() {
    let case = Case { dim: 128, queries: 256, keys: 320, ..PLAIN };
    let (_, counts) = case.run().unwrap();
    assert_eq!(counts.stored, (256 * 128 / 2) as u64, "the output, in pairs");
    assert_eq!(counts.product_flops, 4 * 256 * 320 * 128);
    // Keys and values once for each 128 queries, queries once, in sectors.
    let (streams, queries) = (2 * 2 * 2 * 320 * 128, 2 * 256 * 128);
    assert!((streams + queries..=streams + 2 * queries).contains(&counts.read), "{}", counts.read);
}

#[test]
fn a_kernel_without_its_barriers_is_caught() {
    let without = PTX.replace("bar.sync", "membar.cta; //");
    assert_ne!(PTX, without);
    assert_eq!(PLAIN.run_of(&without).unwrap_err().kind, FaultKind::Uninitialised);
}
