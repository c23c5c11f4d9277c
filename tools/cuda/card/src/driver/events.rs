//! Streams and events.

use std::ffi::{c_int, c_uint};

use super::{on_device, put};
use crate::device::result;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: c_uint = 1;

/// A stream; priorities change nothing that is promised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut u64, flags: c_uint) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|device| unsafe { put(stream, device.new_stream(flags & NON_BLOCKING == 0)) })
}

/// As [`cuStreamCreate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut u64, flags: c_uint, _priority: c_int) -> u32 {
    // SAFETY: the caller's pointer.
    unsafe { cuStreamCreate(stream, flags) }
}

/// What was asked of it is still done; its handle is never used again.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: u64) -> u32 {
    on_device(|_| Ok(()))
}

/// Waits for a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: u64) -> u32 {
    on_device(|device| device.synchronise_stream(stream))
}

/// What is asked of the stream from here on waits for the event.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) -> u32 {
    on_device(|device| device.wait(stream, event))
}

/// No stream is ever captured into a graph.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(_stream: u64, status: *mut c_uint) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|_| unsafe { put(status, 0) })
}

/// An event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut u64, _flags: c_uint) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|device| unsafe { put(event, device.new_event()) })
}

/// Waits that were asked for still mean it; its handle is never used again.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: u64) -> u32 {
    on_device(|device| {
        device.close_event(event);
        Ok(())
    })
}

/// Behind everything asked of the stream so far.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: u64, stream: u64) -> u32 {
    on_device(|device| device.record(event, stream))
}

/// Waits for an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: u64) -> u32 {
    on_device(|device| device.synchronise_event(event))
}

/// Whether it was reached.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: u64) -> u32 {
    on_device(|device| {
        device.sound()?;
        if device.event_reached(event) { Ok(()) } else { Err(result::NOT_READY) }
    })
}

/// Simulated milliseconds between two events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: u64, end: u64) -> u32 {
    // SAFETY: the caller's pointer.
    on_device(|device| unsafe { put(milliseconds, (device.between(start, end) * 1e3) as f32) })
}
