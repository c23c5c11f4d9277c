//! The call of cuBLAS.

use std::ffi::c_void;

use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::{
            cublas::{result::gemm_strided_batched_ex, sys},
            driver::{DevicePtr, DevicePtrMut, DeviceRepr},
        },
    },
};
use half::{bf16, f16};

use crate::nn::kernels::card::Given;

/// `x·weightᵀ` for a weight whose rows are so many numbers apart.
pub(super) struct Columns {
    pub(super) apart: usize,
}

impl CustomOp2 for Columns {
    fn name(&self) -> &'static str {
        "product with columns"
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _x_layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Err(candle_core::Error::msg("a product by cuBLAS, on a processor"))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let given = [(x, x_layout), (weight, weight_layout)];
        match x.dtype() {
            DType::F32 => self.multiply::<f32>(sys::cudaDataType_t::CUDA_R_32F, given),
            DType::BF16 => self.multiply::<bf16>(sys::cudaDataType_t::CUDA_R_16BF, given),
            DType::F16 => self.multiply::<f16>(sys::cudaDataType_t::CUDA_R_16F, given),
            other => Err(candle_core::Error::msg(format!("no product with columns of {other:?}"))),
        }
    }
}

impl Columns {
    /// Sums are f32. cuBLAS counts columns first: to it, the transpose [out, C] is made of the weight, transposed, and x.
    fn multiply<T: CudaDType + DeviceRepr>(
        &self,
        kind: sys::cudaDataType_t,
        [(x, x_layout), (weight, weight_layout)]: [Given<'_>; 2],
    ) -> Result<(CudaStorage, Shape)> {
        let ((rows, inputs), outputs) = (x_layout.shape().dims2()?, weight_layout.dims()[0]);
        let number = |count: usize| i32::try_from(count).map_err(candle_core::Error::wrap);
        let device = x.device();
        let (stream, blas) = (device.cuda_stream(), device.cublas_handle());
        // SAFETY: the product writes all of it.
        let mut out = unsafe { device.alloc::<T>(rows * outputs)? };
        let x = x.as_cuda_slice::<T>()?.slice(x_layout.start_offset()..);
        let weight = weight.as_cuda_slice::<T>()?.slice(weight_layout.start_offset()..);
        let (one, zero) = (1_f32, 0_f32);
        {
            let ((x, _x_read), (weight, _weight_read)) = (x.device_ptr(&stream), weight.device_ptr(&stream));
            let (out, _out_written) = out.device_ptr_mut(&stream);
            // SAFETY: rows and their distances are those of the layouts; the factors are f32, as the sums are.
            unsafe {
                gemm_strided_batched_ex(
                    *blas.handle(),
                    sys::cublasOperation_t::CUBLAS_OP_T,
                    sys::cublasOperation_t::CUBLAS_OP_N,
                    number(outputs)?,
                    number(rows)?,
                    number(inputs)?,
                    (&raw const one).cast::<c_void>(),
                    weight as *const c_void,
                    kind,
                    number(self.apart)?,
                    0,
                    x as *const c_void,
                    kind,
                    number(inputs)?,
                    0,
                    (&raw const zero).cast::<c_void>(),
                    out as *mut c_void,
                    kind,
                    number(outputs)?,
                    0,
                    1,
                    sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
                )
            }
            .w()?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from((rows, outputs)))) // [C, out]
    }
}
