//! The plan: what it says of the real model without one, and of real runs of a small one.

use crate::{counting::alone, support::manifest::flux1};
use candle_core::{DType, Device};
use dype::testing::{
    base::geometry::ImageSize,
    base::memory::Bytes,
    models::flux1::{ForwardOptions, LATENTS},
    plan::{Machine, Plan, Task},
};

/// A processor counts in 64 bits: with all the memory there is, it takes the pieces that are fastest.
#[test]
fn a_processor_s_pieces_follow_from_memory_alone() {
    let _alone = alone();
    let files = flux1();
    for side_px in [4096, 8192] {
        for dtype in [DType::F32, DType::BF16] {
            let size = ImageSize::new(side_px, side_px).expect("a size");
            let task = Task::new(size, 28, 512);
            let machine = Machine { device: Device::Cpu, dtype, budget: None, weights: None };
            let plan = Plan::new(&files, &task, &machine).expect("all the memory there is");
            assert_eq!(plan.choices.forward, ForwardOptions::default(), "{side_px} px, {dtype:?}");
            // The stream alone: 3072 channels of every token.
            let largest = plan.largest_tensor_elements;
            assert!(largest >= 3072 * (LATENTS.tokens(size).count() as u64 + 512), "{largest}");
        }
    }
}

/// What `ulimit -v` leaves is known only once the model's files are mapped.
#[test]
fn limits_of_the_process_narrow_the_budget_and_are_named_where_they_do() {
    let _alone = alone();
    let of = |budget: Option<u64>, left: Option<u64>| {
        let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: budget.map(Bytes), weights: None };
        let (machine, is_limited) = machine.within(left);
        (machine.budget.map(|bytes| bytes.0), is_limited)
    };
    assert_eq!(of(Some(1_000), None), (Some(1_000), false));
    assert_eq!(of(None, None), (None, false));
    assert_eq!(of(None, Some(1_000)), (Some(900), true));
    assert_eq!(of(Some(2_000), Some(1_000)), (Some(900), true));
    assert_eq!(of(Some(900), Some(1_100)), (Some(900), true), "a moment later a little more is left");
    assert_eq!(of(Some(900), Some(10_000)), (Some(900), false), "something else leaves less");
}

/// The peak of a run is within 15% of the plan's, which counts what the program allocates: mapped files, the program's
/// own among them, come on top.
#[cfg(target_os = "linux")]
#[test]
fn a_run_takes_the_memory_that_was_planned() {
    let _alone = alone();
    for (side, threads) in [("64", "2"), ("512", "2"), ("512", "8")] {
        let (planned, taken) = (peak::planned(side, threads), peak::taken(side, threads, &[]));
        let ratio = taken / planned;
        let what = format!("{side} px, {threads} threads: planned {planned:.0}, taken {taken:.0}, {ratio:.2}");
        assert!((0.85..1.15).contains(&ratio), "{what}");
    }
}

/// Within little the decoder goes in narrow bands of many sizes, of which the allocator must not keep more than is allowed.
#[cfg(target_os = "linux")]
#[test]
fn a_run_stays_within_the_memory_it_was_given() {
    let _alone = alone();
    for (side, megabytes) in [("256", 30), ("512", 60), ("512", 80)] {
        let allowed = ["--memory", &format!("{megabytes}MB")];
        let taken = peak::taken(side, "2", &allowed);
        assert!(taken <= 1e6 * f64::from(megabytes), "{side} px within {megabytes} MB: taken {taken:.0}");
    }
}

#[cfg(target_os = "linux")]
mod peak {
    use std::{fs, process::Stdio, thread, time::Duration};

    use serde_json::Value;

    use crate::support::program::{Place, small};

    /// A run of tiny-flux with a full prompt on so many threads, each of which has buffers of its own.
    fn command(place: &Place, side: &str, threads: &str, more: &[&str]) -> std::process::Command {
        let size = ["--height", side, "--width", side, "--max-sequence-length", "512", "--json"];
        let mut command = place.command(&small(&[&size, more].concat()));
        command.env("RAYON_NUM_THREADS", threads).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    fn json(output: &std::process::Output) -> Value {
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The peak that is stated before a run, in bytes.
    pub fn planned(side: &str, threads: &str) -> f64 {
        let plan = json(&command(&Place::new(), side, threads, &["--dry-run"]).output().expect("runs"));
        let stages = plan["plan"]["peak_bytes"].as_object().expect("stages").values();
        stages.filter_map(Value::as_f64).fold(0.0, f64::max)
    }

    /// The peak of a run, less the most of mapped files that was resident until then, in bytes.
    pub fn taken(side: &str, threads: &str, more: &[&str]) -> f64 {
        let place = Place::new();
        let mut child = command(&place, side, threads, more).spawn().expect("starts");
        let (mut mapped, mut taken) = (0.0f64, 0.0f64);
        while child.try_wait().expect("a child").is_none() {
            if let Some([peak, files]) = resident(child.id()) {
                mapped = mapped.max(files);
                taken = taken.max(peak - mapped);
            }
            thread::sleep(Duration::from_millis(2));
        }
        let run = json(&child.wait_with_output().expect("ends"));
        taken.max(run["peak_memory_bytes"].as_f64().expect("Linux tells") - mapped)
    }

    /// The most that was resident, and what of mapped files is, in bytes.
    fn resident(process: u32) -> Option<[f64; 2]> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let bytes = |name: &str| -> Option<f64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
        };
        Some([bytes("VmHWM:")?, bytes("RssFile:")?])
    }
}
