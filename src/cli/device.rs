//! The device a run computes on, and in which numbers.

use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;

use super::{args::ThreadsArgs, report::Report};
use crate::{
    base::{
        device::DeviceKind,
        processor::usual_threads,
        progress::{Event, Observer},
    },
    error::{Error, Result},
    nn::{check_matrix_unit, check_pairs},
};

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best device this binary was built for and finds.
    Auto,
    /// The processor.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "metal" => Ok(Self::Metal),
                _ => Err("a device is auto, cpu, cuda, cuda:N or metal".into()),
            },
            Some(("cuda", number)) => {
                number.parse().map(Self::Cuda).map_err(|_| "a CUDA device is cuda:0, cuda:1, ...".into())
            }
            Some(_) => Err("a device is auto, cpu, cuda, cuda:N or metal".into()),
        }
    }
}

/// The number type a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floats.
    F16,
}

impl From<DtypeArg> for DType {
    fn from(arg: DtypeArg) -> Self {
        match arg {
            DtypeArg::F32 => Self::F32,
            DtypeArg::Bf16 => Self::BF16,
            DtypeArg::F16 => Self::F16,
        }
    }
}

/// Starts the threads that compute: a process that may not have them says so here, and not in the middle of its work.
///
/// # Errors
/// [`Error::Memory`] where the system starts no more; [`Error::Request`] where the variable of the matrix unit says something unknown.
pub fn start_threads(args: &ThreadsArgs) -> Result<()> {
    check_matrix_unit()?;
    check_pairs()?;
    #[cfg(target_os = "linux")]
    crate::base::nodes::interleave_memory();
    let count = args.threads.or_else(named_threads).unwrap_or_else(usual_threads);
    match rayon::ThreadPoolBuilder::new().num_threads(count).build_global() {
        // What is there already was started the same way.
        Err(error) if std::error::Error::source(&error).is_some() => {
            let what = format!("{count} threads that compute cannot be started: {error}");
            let hint = "raise the limits of this process (ulimit -u, ulimit -v, its container's pids), or ask for fewer with --threads";
            Err(Error::Memory { what, hint: hint.into() })
        }
        _ => Ok(()),
    }
}

/// What the variable says that programs of this kind share.
fn named_threads() -> Option<usize> {
    std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|count| *count > 0)
}

/// The device that was asked for; `auto` takes a GPU where one is built in and found, and says so where none is found.
///
/// # Errors
/// [`Error::Request`] when it is not built in, or cannot be opened.
pub fn open(choice: DeviceChoice, report: &Report) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if cfg!(feature = "cuda") => Ok(or_cpu("cuda:0", open_cuda(0), report)),
        DeviceChoice::Auto if cfg!(feature = "metal") => Ok(or_cpu("metal", Device::new_metal(0), report)),
        DeviceChoice::Auto => Ok(Device::Cpu),
        DeviceChoice::Cuda(_) if !cfg!(feature = "cuda") => Err(not_built_in("cuda")),
        DeviceChoice::Cuda(number) => {
            let name = format!("cuda:{number}");
            open_cuda(number).map_err(|error| cannot_open(&name, error))
        }
        DeviceChoice::Metal if !cfg!(feature = "metal") => Err(not_built_in("metal")),
        DeviceChoice::Metal => Device::new_metal(0).map_err(|error| cannot_open("metal", error)),
    }
}

/// A CUDA device on which this program's kernels run: they are made for one compute capability, and a driver says only when
/// the first is loaded that a card is older.
fn open_cuda(number: usize) -> candle_core::Result<Device> {
    let device = Device::new_cuda(number)?;
    Tensor::zeros(1, DType::F32, &device)?.affine(1.0, 0.0)?;
    Ok(device)
}

fn or_cpu(name: &str, opened: candle_core::Result<Device>, report: &Report) -> Device {
    opened.unwrap_or_else(|error| {
        report.on(Event::Note(format!("{name} cannot be opened ({}): computing on the CPU", reason(error))));
        Device::Cpu
    })
}

fn not_built_in(feature: &str) -> Error {
    let what = format!("--device {feature}: this dype was built without {feature}");
    let hint = format!("build it with `cargo install --path . --features {feature}`, or use --device cpu");
    Error::request(what, hint)
}

fn cannot_open(name: &str, error: candle_core::Error) -> Error {
    let reason = reason(error);
    let look = match reason.as_str() {
        _ if name == "metal" => "",
        reason if FOREIGN_KERNELS.contains(&reason) => {
            "this dype's kernels are made for newer cards or a newer driver: build it with CUDA_COMPUTE_CAP set to this \
             card's compute capability (75 for 7.5), update the driver, or "
        }
        _ => "see whether nvidia-smi lists it (CUDA_VISIBLE_DEVICES may hide it), or ",
    };
    Error::request(format!("--device {name} cannot be opened: {reason}"), format!("{look}use --device cpu"))
}

/// What a driver says of kernels that it cannot make run on its card.
const FOREIGN_KERNELS: [&str; 3] =
    ["CUDA_ERROR_INVALID_PTX", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "CUDA_ERROR_NO_BINARY_FOR_GPU"];

/// What a driver says, in one line: its own name of the fault where the message holds one.
fn reason(error: candle_core::Error) -> String {
    let text = Error::from(error).to_string();
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut faults = names.filter(|name| name.starts_with("CUDA_ERROR_"));
    faults.next().map_or(text.clone(), str::to_owned)
}

/// The number type of the computation: what a device of this kind usually computes in, unless asked otherwise.
///
/// # Errors
/// [`Error::Request`] for bf16 on a card that has none.
pub fn compute_dtype(asked: Option<DtypeArg>, kind: DeviceKind) -> Result<DType> {
    match asked {
        None => Ok(kind.usual_dtype()),
        Some(DtypeArg::Bf16) if !kind.has_bf16() => {
            let what = format!("--dtype bf16: this {} does not compute in bf16", card(kind));
            Err(Error::request(what, "use --dtype f32; cards from compute capability 8.0 on have bf16"))
        }
        Some(asked) => Ok(asked.into()),
    }
}

/// What to call a device in messages.
fn card(kind: DeviceKind) -> String {
    match kind {
        DeviceKind::Cuda { capability: (major, minor) } => format!("card of compute capability {major}.{minor}"),
        DeviceKind::Cpu | DeviceKind::Metal => format!("device ({})", kind.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_fault_is_told_by_its_name() {
        let fault = r#"DriverError(CUDA_ERROR_NO_DEVICE, "<Failure when calling cuGetErrorString()>")"#;
        let error = cannot_open("cuda:1", candle_core::Error::msg(fault));
        assert_eq!(error.to_string(), "--device cuda:1 cannot be opened: CUDA_ERROR_NO_DEVICE");
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint().expect("advice").contains("--device cpu"));
        assert_eq!(reason(candle_core::Error::msg("no such thing")), "no such thing");
    }

    /// The simulated card, as a T4, loads no kernel that was compiled for an H100.
    #[test]
    fn kernels_for_newer_cards_are_called_what_they_are() {
        let fault = r#"DriverError(CUDA_ERROR_INVALID_PTX, "a PTX JIT compilation failed")"#;
        let error = cannot_open("cuda:0", candle_core::Error::msg(fault));
        let hint = error.hint().expect("advice");
        assert!(hint.contains("CUDA_COMPUTE_CAP") && hint.contains("--device cpu"), "{hint}");
        assert!(!hint.contains("nvidia-smi"), "{hint}");
    }

    #[test]
    fn bf16_is_for_cards_that_have_it() {
        let old = DeviceKind::Cuda { capability: (7, 5) };
        let new = DeviceKind::Cuda { capability: (8, 0) };
        for (kind, usual) in [(DeviceKind::Cpu, DType::F32), (old, DType::F32), (new, DType::BF16)] {
            assert_eq!(compute_dtype(None, kind).expect("usual"), usual, "{kind:?}");
            assert_eq!(compute_dtype(Some(DtypeArg::F16), kind).expect("asked"), DType::F16, "{kind:?}");
        }
        assert_eq!(compute_dtype(Some(DtypeArg::Bf16), DeviceKind::Cpu).expect("rounded products"), DType::BF16);
        let error = compute_dtype(Some(DtypeArg::Bf16), old).expect_err("no bf16");
        assert_eq!((error.exit_code(), error.to_string().contains("7.5")), (2, true), "{error}");
        assert!(error.hint().expect("advice").contains("--dtype f32"));
    }
}
