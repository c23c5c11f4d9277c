//! `libcurand.so.10`: generators are made and set, and give nothing: the program's noise is its own.
#![allow(non_snake_case, reason = "the names are NVIDIA's")]

use std::ffi::{c_uint, c_ulonglong};

use crate::driver::put;

/// Source: curand.h, `curandStatus_t`.
const SUCCESS: u32 = 0;
const TYPE_ERROR: u32 = 103;

/// A generator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandCreateGenerator(generator: *mut u64, _kind: c_uint) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { put(generator, 0x7a2d) }.map_or(TYPE_ERROR, |()| SUCCESS)
}

/// Gives it back.
#[unsafe(no_mangle)]
pub extern "C" fn curandDestroyGenerator(_generator: u64) -> u32 {
    SUCCESS
}

/// Its seed.
#[unsafe(no_mangle)]
pub extern "C" fn curandSetPseudoRandomGeneratorSeed(_generator: u64, _seed: c_ulonglong) -> u32 {
    SUCCESS
}

/// Where it would run.
#[unsafe(no_mangle)]
pub extern "C" fn curandSetStream(_generator: u64, _stream: u64) -> u32 {
    SUCCESS
}

macro_rules! unsupported {
    ($($name:ident),* $(,)?) => {
        $(
            /// Not supported: says so.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> u32 {
                eprintln!("card: {} is not supported", stringify!($name));
                TYPE_ERROR
            }
        )*
    };
}

unsupported!(
    curandGenerateUniform,
    curandGenerateUniformDouble,
    curandGenerate,
    curandGenerateLongLong,
    curandGenerateNormal,
    curandGenerateNormalDouble,
    curandGenerateLogNormal,
    curandGenerateLogNormalDouble,
    curandSetGeneratorOffset,
);
