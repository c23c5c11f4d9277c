//! The launch of the kernel.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{DeviceRepr, PushKernelArg},
    },
};
use half::{bf16, f16};

use super::{How, THREADS, Widen};
use crate::nn::kernels::card::{self, Given, numbers};

/// The kernels as text, of which the driver makes machine code for its card.
const KERNELS: &str = include_str!("widen.ptx");
/// What candle keeps them under, once they are loaded on a device.
const MODULE: &str = "dype widen";

// SAFETY: numbers side by side, laid out as the kernel's own struct.
unsafe impl DeviceRepr for How {}

impl CustomOp1 for Widen {
    fn name(&self) -> &'static str {
        "widen"
    }

    fn cpu_fwd(&self, _codes: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(card::on_processor("weights widened"))
    }

    fn cuda_fwd(&self, codes: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_card((codes, layout), None)
    }
}

impl CustomOp2 for Widen {
    fn name(&self) -> &'static str {
        "widen"
    }

    fn cpu_fwd(
        &self,
        _codes: &CpuStorage,
        _codes_layout: &Layout,
        _scale: &CpuStorage,
        _scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Err(card::on_processor("weights widened"))
    }

    fn cuda_fwd(
        &self,
        codes: &CudaStorage,
        codes_layout: &Layout,
        scale: &CudaStorage,
        scale_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_card((codes, codes_layout), Some((scale, scale_layout)))
    }
}

impl Widen {
    fn on_card(&self, codes: Given<'_>, scale: Option<Given<'_>>) -> Result<(CudaStorage, Shape)> {
        match self.dtype {
            DType::BF16 => self.launch::<bf16>("bf16", codes, scale),
            DType::F16 => self.launch::<f16>("f16", codes, scale),
            DType::F32 => self.launch::<f32>("f32", codes, scale),
            other => Err(candle_core::Error::msg(format!("no kernel that widens to {other:?}"))),
        }
    }

    fn launch<T: CudaDType + DeviceRepr>(
        &self,
        word: &str,
        codes: Given<'_>,
        scale: Option<Given<'_>>,
    ) -> Result<(CudaStorage, Shape)> {
        let (rows, count) = (codes.1.dims()[0], usize::try_from(self.how.count).map_err(candle_core::Error::wrap)?);
        let device = codes.0.device();
        let name = format!("widen_{}_{word}", self.kind.word());
        let function = device.get_or_load_custom_func(&name, MODULE, KERNELS)?;
        // SAFETY: the kernel writes all of it.
        let mut out = unsafe { device.alloc::<T>(rows * count)? };
        let (codes, scale) = (numbers::<u8>(codes)?, scale.map(numbers::<f32>).transpose()?);
        let mut builder = function.builder();
        builder.arg(&codes);
        match &scale {
            Some(scale) => builder.arg(scale),
            // Blocks have none, and it is not looked at.
            None => builder.arg(&codes),
        };
        builder.arg(&mut out).arg(&self.how);
        let config = card::launch([count.div_ceil(THREADS), rows], THREADS, 0)?;
        // SAFETY: `how` says where the rows of codes and scales lie, and the kernel reads and writes no others.
        unsafe { builder.launch(config) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from((rows, count))))
    }
}
