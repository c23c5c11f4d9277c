//! The launches of the kernels.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, DType, Layout, Result, Shape, Tensor,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{DeviceRepr, PushKernelArg},
    },
};
use half::{bf16, f16};

use super::{How, Kernel, Pass, THREADS};
use crate::nn::kernels::{
    card::{self, Given, numbers},
    checked::{Checked, word},
};

/// The kernels as text, of which the driver makes machine code for its card.
const KERNELS: &str = include_str!("maps.ptx");
/// What candle keeps them under, once they are loaded on a device.
const MODULE: &str = "dype maps";

// SAFETY: numbers side by side, laid out as the kernels' own struct.
unsafe impl DeviceRepr for How {}

pub(super) fn window([x, affine, above]: [&Tensor; 3], pass: Pass) -> Result<Tensor> {
    x.apply_op3_no_bwd(affine, above, &pass)
}

pub(super) fn one(x: &Tensor, pass: Pass) -> Result<Tensor> {
    x.apply_op1_no_bwd(&pass)
}

fn unknown(dtype: DType) -> candle_core::Error {
    candle_core::Error::msg(format!("no kernel for maps of {dtype:?}"))
}

impl Pass {
    /// What `maps.cu` calls it.
    fn full_name(&self, dtype: DType) -> String {
        let way = if self.is_wide { "wide" } else { "any" };
        format!("{}_{}_{way}", self.kernel.name(), word(dtype).unwrap_or_default())
    }

    /// Blocks: moments have one for each count.
    fn blocks(&self) -> usize {
        if self.kernel == Kernel::Moments { self.count } else { self.count.div_ceil(THREADS) }
    }

    /// A kernel that is given one array.
    fn one<T: CudaDType + DeviceRepr>(&self, given: Given<'_>) -> Result<(CudaStorage, Shape)> {
        let size = |number: i32| usize::try_from(number).map_err(candle_core::Error::wrap);
        let (How { out_rows, out_columns, .. }, channels) = (self.how, size(self.how.channels)?);
        match self.kernel {
            Kernel::Moments => self.one_to::<T, f32>(given, Shape::from((self.count, 2, channels))),
            _ => self.one_to::<T, T>(given, Shape::from((size(out_rows)?, size(out_columns)?, 9 * channels))),
        }
    }

    fn one_to<T, O>(&self, given: Given<'_>, shape: Shape) -> Result<(CudaStorage, Shape)>
    where
        T: CudaDType + DeviceRepr,
        O: CudaDType + DeviceRepr,
    {
        let device = given.0.device();
        let function = device.get_or_load_custom_func(&self.full_name(given.0.dtype()), MODULE, KERNELS)?;
        // SAFETY: the kernel writes all of it.
        let mut out = unsafe { device.alloc::<O>(shape.elem_count())? };
        let x = numbers::<T>(given)?;
        let mut builder = function.builder();
        builder.arg(&x).arg(&mut out).arg(&self.how);
        // SAFETY: `how` has the sizes of both arrays, and the kernel reads and writes no others.
        unsafe { builder.launch(card::launch([self.blocks(), 1], THREADS, 0)?) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
    }

    fn window<T: CudaDType + DeviceRepr>(&self, [x, affine, above]: [Given<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let size = |number: i32| usize::try_from(number).map_err(candle_core::Error::wrap);
        let How { out_rows, out_columns, channels, way, .. } = self.how;
        let shape = Shape::from((size(out_rows)?, size(out_columns)?, size(channels)?));
        let device = x.0.device();
        let function = device.get_or_load_custom_func(&self.full_name(x.0.dtype()), MODULE, KERNELS)?;
        // SAFETY: the kernel writes all of it.
        let mut out = unsafe { device.alloc::<T>(shape.elem_count())? };
        let affine = if way > 0 { Some(numbers::<f32>(affine)?) } else { None };
        let (x, above) = (numbers::<T>(x)?, numbers::<T>(above)?);
        let mut builder = function.builder();
        builder.arg(&x);
        match &affine {
            Some(affine) => builder.arg(affine),
            // Not looked at.
            None => builder.arg(&x),
        };
        builder.arg(&above).arg(&mut out).arg(&self.how);
        // SAFETY: `how` has the sizes of all arrays, held against each other before, and the kernel reads and writes no others.
        unsafe { builder.launch(card::launch([self.blocks(), 1], THREADS, 0)?) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
    }
}

impl CustomOp1 for Pass {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn cpu_fwd(&self, _x: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(card::on_processor("a map"))
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match x.dtype() {
            DType::BF16 => self.one::<bf16>((x, layout)),
            DType::F16 => self.one::<f16>((x, layout)),
            DType::F32 => self.one::<f32>((x, layout)),
            other => Err(unknown(other)),
        }
    }
}

impl CustomOp3 for Pass {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _x_layout: &Layout,
        _affine: &CpuStorage,
        _affine_layout: &Layout,
        _above: &CpuStorage,
        _above_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Err(card::on_processor("a map"))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        affine: &CudaStorage,
        affine_layout: &Layout,
        above: &CudaStorage,
        above_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let given = [(x, x_layout), (affine, affine_layout), (above, above_layout)];
        match x.dtype() {
            DType::BF16 => self.window::<bf16>(given),
            DType::F16 => self.window::<f16>(given),
            DType::F32 => self.window::<f32>(given),
            other => Err(unknown(other)),
        }
    }
}
