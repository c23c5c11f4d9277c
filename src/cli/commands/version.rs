//! `dype --version`, and with `-v` what is built in and which devices are there.

use candle_core::utils;

use crate::cli::report::Report;
use crate::nn::kernels::flash;

/// Prints the version; with `details` build features and devices too.
pub fn print(report: &Report, details: bool) -> anyhow::Result<()> {
    report.result(&format!("dype {}", env!("CARGO_PKG_VERSION")));
    if details {
        report.result(&format!("features: {}", features().join(" ")));
        for device in devices() {
            report.result(&format!("device: {device}"));
        }
    }
    Ok(())
}

/// What is built in.
fn features() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("flash-attn", flash::library::BUILT_IN),
        ("metal", cfg!(feature = "metal")),
    ];
    let built: Vec<_> = all.into_iter().filter(|(_, is_built)| *is_built).map(|(name, _)| name).collect();
    if built.is_empty() { vec!["none (CPU only)"] } else { built }
}

/// The devices this binary can use here.
fn devices() -> Vec<String> {
    #[cfg_attr(not(any(feature = "cuda", feature = "metal")), expect(unused_mut, reason = "extended by GPU features"))]
    let mut devices = vec![format!("cpu ({} threads)", utils::get_num_threads())];
    #[cfg(feature = "cuda")]
    devices.extend((0..).map_while(|i| candle_core::Device::new_cuda(i).ok().map(|_| format!("cuda:{i}"))));
    #[cfg(feature = "metal")]
    devices.extend(candle_core::Device::new_metal(0).ok().map(|_| "metal".to_owned()));
    devices
}
