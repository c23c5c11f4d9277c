//! Cards by name: what each has and how fast it is. Source: NVIDIA's data sheets and whitepapers; products with f32 sums,
//! without sparsity.

/// A card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// The word that `CARD` takes.
    pub word: &'static str,
    /// What `cuDeviceGetName` says.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub bytes: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes a second to and from its memory.
    pub bandwidth: f64,
    /// Operations a second of half-precision products.
    pub half_flops: f64,
    /// Those of e4m3; 0 where there are none.
    pub float8_flops: f64,
    /// Operations a second of f32.
    pub single_flops: f64,
    /// Bytes a second over PCI Express, as measured on such machines rather than as the standard allows.
    pub pcie: f64,
    /// Bytes cuBLAS takes for each handle. Source: cuBLAS, "cublasSetWorkspace": 32 MiB on Hopper, 8 MiB + 32 KiB else.
    pub blas_workspace: u64,
}

const MIB: u64 = 1 << 20;
const SMALL_WORKSPACE: u64 = 8 * MIB + (32 << 10);

/// The cards there are.
pub const CARDS: [Card; 6] = [
    Card {
        word: "h100",
        name: "NVIDIA H100 80GB HBM3",
        capability: (9, 0),
        bytes: 81_559 * MIB,
        multiprocessors: 132,
        bandwidth: 3.35e12,
        half_flops: 989e12,
        float8_flops: 1979e12,
        single_flops: 67e12,
        pcie: 50e9,
        blas_workspace: 32 * MIB,
    },
    Card {
        word: "a100",
        name: "NVIDIA A100-SXM4-80GB",
        capability: (8, 0),
        bytes: 81_920 * MIB,
        multiprocessors: 108,
        bandwidth: 2.039e12,
        half_flops: 312e12,
        float8_flops: 0.0,
        single_flops: 19.5e12,
        pcie: 25e9,
        blas_workspace: SMALL_WORKSPACE,
    },
    Card {
        word: "rtx4090",
        name: "NVIDIA GeForce RTX 4090",
        capability: (8, 9),
        bytes: 24_564 * MIB,
        multiprocessors: 128,
        bandwidth: 1.008e12,
        half_flops: 165e12,
        float8_flops: 330e12,
        single_flops: 82.6e12,
        pcie: 25e9,
        blas_workspace: SMALL_WORKSPACE,
    },
    Card {
        word: "rtx3060",
        name: "NVIDIA GeForce RTX 3060",
        capability: (8, 6),
        bytes: 12_288 * MIB,
        multiprocessors: 28,
        bandwidth: 360e9,
        half_flops: 25.5e12,
        float8_flops: 0.0,
        single_flops: 12.7e12,
        pcie: 25e9,
        blas_workspace: SMALL_WORKSPACE,
    },
    Card {
        word: "rtx4060",
        name: "NVIDIA GeForce RTX 4060",
        capability: (8, 9),
        bytes: 8_188 * MIB,
        multiprocessors: 24,
        bandwidth: 272e9,
        half_flops: 30.2e12,
        float8_flops: 60.4e12,
        single_flops: 15.1e12,
        pcie: 12.5e9,
        blas_workspace: SMALL_WORKSPACE,
    },
    Card {
        word: "t4",
        name: "Tesla T4",
        capability: (7, 5),
        bytes: 15_360 * MIB,
        multiprocessors: 40,
        bandwidth: 320e9,
        half_flops: 65e12,
        float8_flops: 0.0,
        single_flops: 8.1e12,
        pcie: 12e9,
        blas_workspace: SMALL_WORKSPACE,
    },
];

impl Card {
    /// Threads of a multiprocessor. Source: CUDA programming guide, "Technical Specifications per Compute Capability".
    pub fn threads_per_multiprocessor(&self) -> u32 {
        match self.capability {
            (7, 5) => 1024,
            (8, 6 | 7 | 9) | (12, _) => 1536,
            _ => 2048,
        }
    }
}

/// Bytes that a context takes before a program allocates anything: a figure seen with drivers of CUDA 12 and 13, not a promise.
pub const CONTEXT_BYTES: u64 = 480 * MIB;

/// What a run is asked to be, from the environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `CARD`: the card; an H100 unless said.
    pub card: Card,
    /// `CARD_SEED`: the order in which streams run; in the order of the calls unless said.
    pub seed: Option<u64>,
    /// `CARD_SHAPES=1`: large allocations are addresses only, and a few blocks of each launch are executed.
    pub shapes: bool,
    /// `CARD_REPORT`: where to write what was counted.
    pub report: Option<String>,
    /// `CARD_PTX`: a folder of PTX files that take the place of modules without text, as a binary has them that was built
    /// with `stub-nvcc`.
    pub ptx: Option<String>,
    /// `CARD_TRACE=1`: every operation on standard error.
    pub trace: bool,
}

impl Settings {
    /// What the variables say; `read` gives their values.
    ///
    /// # Errors
    /// What is wrong with one.
    pub fn new(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| match read(name) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{name}={text}, which is no number")),
        };
        let word = read("CARD").unwrap_or_else(|| CARDS[0].word.to_owned());
        let words: Vec<_> = CARDS.iter().map(|card| card.word).collect();
        let found = CARDS.iter().find(|card| card.word == word);
        let mut card = *found.ok_or_else(|| format!("CARD={word}: there are {}", words.join(", ")))?;
        if let Some(mib) = number("CARD_MEMORY_MIB")? {
            card.bytes = mib * MIB;
        }
        if let Some(capability) = number("CARD_CAPABILITY")? {
            card.capability = (capability as u32 / 10, capability as u32 % 10);
        }
        let on = |name: &str| read(name).is_some_and(|value| value == "1");
        let (shapes, trace) = (on("CARD_SHAPES"), on("CARD_TRACE"));
        Ok(Self { card, seed: number("CARD_SEED")?, shapes, report: read("CARD_REPORT"), ptx: read("CARD_PTX"), trace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_card() {
        let read = |name: &str| match name {
            "CARD" => Some("rtx3060".into()),
            "CARD_MEMORY_MIB" => Some("8192".into()),
            "CARD_CAPABILITY" => Some("75".into()),
            "CARD_SEED" => Some("7".into()),
            _ => None,
        };
        let settings = Settings::new(read).unwrap();
        assert_eq!((settings.card.bytes, settings.card.capability), (8 << 30, (7, 5)));
        assert_eq!((settings.seed, settings.shapes), (Some(7), false));
        assert_eq!(settings.card.threads_per_multiprocessor(), 1024);
        assert_eq!(CARDS.map(|card| card.threads_per_multiprocessor()), [2048, 2048, 1536, 1536, 1536, 1024]);
        for card in CARDS {
            // The first whose `mma` takes e4m3, at twice the rate of bf16. Source: PTX ISA, `mma`.
            let times = if card.capability >= (8, 9) { 2.0 } else { 0.0 };
            assert!((card.float8_flops / card.half_flops - times).abs() < 0.01, "{}", card.name);
        }
        assert!(Settings::new(|name| (name == "CARD").then(|| "abacus".into())).unwrap_err().contains("h100"));
    }
}
