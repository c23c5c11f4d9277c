//! The launch of our own kernel.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, DType, Layout, Result, Shape,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{DeviceRepr, PushKernelArg},
    },
};
use half::{bf16, f16};

use super::own::{How, THREADS};
use crate::nn::kernels::card::{self, Given, numbers};

/// The kernels as text, of which the driver makes machine code for its card.
const KERNELS: &str = include_str!("attention.ptx");
/// What candle keeps them under, once they are loaded on a device.
const MODULE: &str = "dype attention";
/// Queries of a block: 16 for each warp of 32 threads.
const QUERIES: usize = THREADS / 32 * 16;

// SAFETY: numbers side by side, laid out as the kernel's own struct.
unsafe impl DeviceRepr for How {}

impl CustomOp3 for How {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        _q: &CpuStorage,
        _q_layout: &Layout,
        _k: &CpuStorage,
        _k_layout: &Layout,
        _v: &CpuStorage,
        _v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Err(card::on_processor("attention"))
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let given = [(q, q_layout), (k, k_layout), (v, v_layout)];
        match q.dtype() {
            DType::BF16 => launch::<bf16>("bf16", given, self),
            DType::F16 => launch::<f16>("f16", given, self),
            other => Err(candle_core::Error::msg(format!("no kernel of attention for {other:?}"))),
        }
    }
}

fn launch<T: CudaDType + DeviceRepr>(word: &str, given: [Given<'_>; 3], how: &How) -> Result<(CudaStorage, Shape)> {
    let [(q, q_layout), _, _] = given;
    let (heads, rows, channels) = q_layout.shape().dims3()?;
    let device = q.device();
    let function = device.get_or_load_custom_func(&format!("attention_{word}_{channels}"), MODULE, KERNELS)?;
    // SAFETY: the kernel writes all of it.
    let mut out = unsafe { device.alloc::<T>(rows * heads * channels)? };
    let [q, k, v] = given.map(numbers::<T>);
    let (q, k, v) = (q?, k?, v?);
    let mut builder = function.builder();
    builder.arg(&q).arg(&k).arg(&v).arg(&mut out).arg(how);
    let config = card::launch([rows.div_ceil(QUERIES), heads], THREADS, 0)?;
    // SAFETY: `how` says of these arrays where their rows lie, and the kernel reads and writes no others.
    unsafe { builder.launch(config) }.w()?;
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from((rows, heads * channels)))) // [C, H·D]
}
