//! `libcublas.so.13`: handles and matrix products.
#![allow(non_snake_case, reason = "the names are NVIDIA's")]

use std::{
    collections::BTreeMap,
    ffi::{c_int, c_longlong, c_uint, c_void},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::gemm::{Gemm, Kind, Matrix};
use crate::{
    device::{device, work::Work},
    driver::put,
};

/// Source: cublas_api.h, `cublasStatus_t`.
const SUCCESS: u32 = 0;
const NOT_INITIALIZED: u32 = 1;
const ALLOC_FAILED: u32 = 3;
const EXECUTION_FAILED: u32 = 13;
const NOT_SUPPORTED: u32 = 15;

/// `CUBLAS_COMPUTE_32F`, and the same with f32 operands as they are.
const COMPUTE_32F: [u32; 2] = [68, 69];
/// `CUBLAS_COMPUTE_32F_FAST_16BF`: half-precision operands are what they are.
const COMPUTE_32F_FAST_16BF: u32 = 75;

/// A handle's stream and workspace.
#[derive(Debug, Clone, Copy)]
struct Handle {
    stream: u64,
    workspace: u64,
}

static HANDLES: Mutex<BTreeMap<u64, Handle>> = Mutex::new(BTreeMap::new());

fn handles() -> MutexGuard<'static, BTreeMap<u64, Handle>> {
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle, with its workspace on the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: *mut u64) -> u32 {
    let mut device = device();
    let Some(device) = device.as_mut() else { return NOT_INITIALIZED };
    let Ok(workspace) = device.allocate_plain(device.settings.card.blas_workspace) else { return ALLOC_FAILED };
    handles().insert(workspace, Handle { stream: 0, workspace });
    // SAFETY: the caller's pointer.
    unsafe { put(handle, workspace) }.map_or(EXECUTION_FAILED, |()| SUCCESS)
}

/// Gives it back.
#[unsafe(no_mangle)]
pub extern "C" fn cublasDestroy_v2(handle: u64) -> u32 {
    let Some(handle) = handles().remove(&handle) else { return NOT_INITIALIZED };
    match device().as_mut().map(|device| device.free(None, handle.workspace)) {
        Some(Ok(())) => SUCCESS,
        _ => EXECUTION_FAILED,
    }
}

/// Where its products run.
#[unsafe(no_mangle)]
pub extern "C" fn cublasSetStream_v2(handle: u64, stream: u64) -> u32 {
    match handles().get_mut(&handle) {
        Some(found) => {
            found.stream = stream;
            SUCCESS
        }
        None => NOT_INITIALIZED,
    }
}

/// Products of a batch: C = alpha · op(A) · op(B) + beta · C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGemmStridedBatchedEx(
    handle: u64,
    transa: c_uint,
    transb: c_uint,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const c_void,
    a: u64,
    a_type: c_uint,
    lda: c_int,
    a_stride: c_longlong,
    b: u64,
    b_type: c_uint,
    ldb: c_int,
    b_stride: c_longlong,
    beta: *const c_void,
    c: u64,
    c_type: c_uint,
    ldc: c_int,
    c_stride: c_longlong,
    batch: c_int,
    compute: c_uint,
    _algorithm: c_int,
) -> u32 {
    let matrix = |at: u64, kind: c_uint, leading: c_int, stride: c_longlong| {
        Some(Matrix { at, kind: Kind::new(kind)?, leading: leading as usize, stride })
    };
    let operands =
        (matrix(a, a_type, lda, a_stride), matrix(b, b_type, ldb, b_stride), matrix(c, c_type, ldc, c_stride));
    let (Some(a), Some(b), Some(c)) = operands else { return unknown("an operand's type", c_type) };
    let exact = COMPUTE_32F.contains(&compute) || (compute == COMPUTE_32F_FAST_16BF && a.kind != Kind::F32);
    if !exact || transa > 1 || transb > 1 {
        return unknown("the type of its sums", compute);
    }
    let gemm = Gemm {
        transposed: (transa == 1, transb == 1),
        m: m as usize,
        n: n as usize,
        k: k as usize,
        // SAFETY: with f32 sums both factors are f32 of the host.
        alpha: unsafe { alpha.cast::<f32>().read() },
        // SAFETY: as above.
        beta: unsafe { beta.cast::<f32>().read() },
        a,
        b,
        c,
        batch: batch as usize,
    };
    let Some(Handle { stream, .. }) = handles().get(&handle).copied() else { return NOT_INITIALIZED };
    match device().as_mut().map(|device| device.ask(stream, Work::Gemm(gemm))) {
        Some(Ok(())) => SUCCESS,
        _ => EXECUTION_FAILED,
    }
}

fn unknown(what: &str, number: u32) -> u32 {
    eprintln!("card: a matrix product with {what} {number} is not supported");
    NOT_SUPPORTED
}

macro_rules! unsupported {
    ($($name:ident),* $(,)?) => {
        $(
            /// Not supported: says so.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> u32 {
                eprintln!("card: {} is not supported", stringify!($name));
                NOT_SUPPORTED
            }
        )*
    };
}

unsupported!(
    cublasGemmEx,
    cublasSgemm_v2,
    cublasDgemm_v2,
    cublasSgemmStridedBatched,
    cublasDgemmStridedBatched,
    cublasHgemm,
    cublasHgemmStridedBatched,
    cublasSgemv_v2,
    cublasDgemv_v2,
    cublasSetMathMode,
    cublasSetWorkspace_v2,
    cublasSetPointerMode_v2,
    cublasGetPointerMode_v2,
    cublasSasum_v2,
    cublasDasum_v2,
    cublasGemmGroupedBatchedEx,
    cublasLtCreate,
    cublasLtDestroy,
    cublasLtMatmul,
);
