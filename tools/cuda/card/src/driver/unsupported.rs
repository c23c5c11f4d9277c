//! Functions that programs look up and this card does not have: each says its name. A lazily linked binary would take a
//! missing one for a missing driver.

use crate::device::result;

macro_rules! unsupported {
    ($code:expr, $($name:ident),* $(,)?) => {
        $(
            /// Not supported: says so.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> u32 {
                eprintln!("card: {} is not supported", stringify!($name));
                $code
            }
        )*
    };
}

unsupported!(
    result::NOT_SUPPORTED,
    cuCtxCreate_v2,
    cuCtxCreate_v3,
    cuCtxCreate_v4,
    cuCtxDestroy_v2,
    cuCtxGetCacheConfig,
    cuCtxGetLimit,
    cuCtxGetStreamPriorityRange,
    cuCtxSetCacheConfig,
    cuCtxSetFlags,
    cuCtxSetLimit,
    cuDeviceGetUuid,
    cuDeviceSetMemPool,
    cuEventElapsedTime,
    cuFuncSetAttribute,
    cuFuncSetCacheConfig,
    cuGetProcAddress_v2,
    cuGraphDestroy,
    cuGraphExecDestroy,
    cuGraphInstantiateWithFlags,
    cuGraphLaunch,
    cuGraphUpload,
    cuLaunchCooperativeKernel,
    cuLaunchHostFunc,
    cuLaunchKernelEx,
    cuLibraryLoadData,
    cuMemAdvise_v2,
    cuMemAllocFromPoolAsync,
    cuMemAllocManaged,
    cuMemHostRegister_v2,
    cuMemHostUnregister,
    cuMemPoolCreate,
    cuMemPoolDestroy,
    cuMemPoolGetAttribute,
    cuMemPoolSetAttribute,
    cuMemPrefetchAsync_v2,
    cuMemcpyPeerAsync,
    cuModuleGetGlobal_v2,
    cuModuleLoad,
    cuModuleLoadDataEx,
    cuModuleLoadFatBinary,
    cuOccupancyAvailableDynamicSMemPerBlock,
    cuOccupancyMaxActiveBlocksPerMultiprocessor,
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags,
    cuOccupancyMaxPotentialBlockSize,
    cuOccupancyMaxPotentialBlockSizeWithFlags,
    cuStreamAttachMemAsync,
    cuStreamBeginCapture_v2,
    cuStreamEndCapture,
    cuStreamQuery,
);
