//! The launches of the kernels.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, DType, Layout, Result, Shape,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{DeviceRepr, PushKernelArg},
    },
};
use half::{bf16, f16};

use super::{How, OUTPUTS, PIECE, ROWS, THREADS};
use crate::nn::kernels::{
    card::{self, Given, numbers},
    checked::word,
};

/// The kernels as text, of which the driver makes machine code for its card.
const KERNELS: &str = include_str!("product.ptx");
/// What candle keeps them under, once they are loaded on a device.
const MODULE: &str = "dype fp8";

// SAFETY: numbers side by side, laid out as the kernel's own struct.
unsafe impl DeviceRepr for How {}

/// Rows of numbers as codes.
pub(super) struct ToCodes(pub(super) How);

/// A product of codes, written in this number type.
pub(super) struct Product(pub(super) How, pub(super) DType);

fn unknown(dtype: DType) -> candle_core::Error {
    candle_core::Error::msg(format!("no product in e4m3 of {dtype:?}"))
}

impl CustomOp1 for ToCodes {
    fn name(&self) -> &'static str {
        "to e4m3"
    }

    fn cpu_fwd(&self, _x: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(card::on_processor("a product in e4m3"))
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match x.dtype() {
            DType::BF16 => self.launch::<bf16>((x, layout)),
            DType::F16 => self.launch::<f16>((x, layout)),
            DType::F32 => self.launch::<f32>((x, layout)),
            other => Err(unknown(other)),
        }
    }
}

impl ToCodes {
    fn launch<T: CudaDType + DeviceRepr>(&self, x: Given<'_>) -> Result<(CudaStorage, Shape)> {
        let (rows, inputs) = x.1.shape().dims2()?;
        let (device, name) = (x.0.device(), format!("to_e4m3_{}", word(x.0.dtype()).unwrap_or_default()));
        let function = device.get_or_load_custom_func(&name, MODULE, KERNELS)?;
        // SAFETY: the kernel writes all of it.
        let mut out = unsafe { device.alloc::<u8>(rows * (inputs + PIECE)) }?;
        let x = numbers::<T>(x)?;
        let mut builder = function.builder();
        builder.arg(&x).arg(&mut out).arg(&self.0);
        // SAFETY: the struct says where rows lie, and the kernel reads and writes no others.
        unsafe { builder.launch(card::launch([rows, 1], THREADS, 0)?) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from((rows, inputs + PIECE))))
    }
}

impl CustomOp3 for Product {
    fn name(&self) -> &'static str {
        "product in e4m3"
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _x_layout: &Layout,
        _codes: &CpuStorage,
        _codes_layout: &Layout,
        _scale: &CpuStorage,
        _scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Err(card::on_processor("a product in e4m3"))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        codes: &CudaStorage,
        codes_layout: &Layout,
        scale: &CudaStorage,
        scale_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let given = [(x, x_layout), (codes, codes_layout), (scale, scale_layout)];
        match self.1 {
            DType::BF16 => self.launch::<bf16>(given),
            DType::F16 => self.launch::<f16>(given),
            DType::F32 => self.launch::<f32>(given),
            other => Err(unknown(other)),
        }
    }
}

impl Product {
    fn launch<T: CudaDType + DeviceRepr>(&self, [x, codes, scale]: [Given<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let (rows, outputs) = (x.1.dims()[0], codes.1.dims()[0]);
        let (device, name) = (x.0.device(), format!("product_e4m3_{}", word(self.1).unwrap_or_default()));
        let function = device.get_or_load_custom_func(&name, MODULE, KERNELS)?;
        // SAFETY: the kernel writes all of it.
        let mut out = unsafe { device.alloc::<T>(rows * outputs) }?;
        let (x, codes, scale) = (numbers::<u8>(x)?, numbers::<u8>(codes)?, numbers::<f32>(scale)?);
        let mut builder = function.builder();
        builder.arg(&x).arg(&codes).arg(&scale).arg(&mut out).arg(&self.0);
        let config = card::launch([rows.div_ceil(ROWS), outputs.div_ceil(OUTPUTS)], THREADS, 0)?;
        // SAFETY: the struct says where rows lie, and the kernel reads and writes no others.
        unsafe { builder.launch(config) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from((rows, outputs)))) // [C, out]
    }
}
