//! The launches themselves.

use candle_core::{
    CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{CudaView, DeviceRepr, LaunchArgs, PushKernelArg},
    },
};
use half::{bf16, f16};

use super::given::{Given, How, THREADS};
use crate::nn::{
    Array,
    kernels::{
        card,
        checked::{Checked, word},
    },
};

/// The kernels as text, of which the driver makes machine code for its card.
const KERNELS: &str = include_str!("rows.ptx");
/// What candle keeps them under, once they are loaded on a device.
const MODULE: &str = "dype rows";

// SAFETY: numbers side by side, laid out as the kernels' own struct.
unsafe impl DeviceRepr for How {}

/// A new tensor of this shape where x is, which the kernel writes.
pub(super) fn made(given: &Given<'_>, shape: &[usize], x: &Tensor) -> Result<Tensor> {
    // SAFETY: the kernel writes all of it.
    let out = unsafe { Tensor::empty(shape, given.dtype, x.device())? };
    let is_wide = given.is_wide(&Array::from(out.clone()));
    in_place(given, is_wide, &out)?;
    Ok(out)
}

/// Runs the kernel on `out`, 16 bytes at once where that is said.
pub(super) fn in_place(given: &Given<'_>, is_wide: bool, out: &Tensor) -> Result<()> {
    let arrays = given.arrays.map(|array| array.map(Array::real_tensor).transpose());
    let [x, a, b, c, d] = arrays;
    let inputs = [x?, a?, b?, c?, d?];
    if inputs.into_iter().flatten().any(|input| shares(input, out)) {
        return Err(candle_core::Error::msg(format!("{} would write what it reads", given.kernel.name())));
    }
    out.inplace_op1(&Operation { given, is_wide, inputs })
}

fn shares(input: &Tensor, out: &Tensor) -> bool {
    let ((input, _), (out, _)) = (input.storage_and_layout(), out.storage_and_layout());
    std::ptr::eq::<Storage>(&*input, &*out)
}

struct Operation<'a> {
    given: &'a Given<'a>,
    is_wide: bool,
    inputs: [Option<&'a Tensor>; 5],
}

impl InplaceOp1 for Operation<'_> {
    fn name(&self) -> &'static str {
        self.given.kernel.name()
    }

    fn cpu_fwd(&self, _storage: &mut CpuStorage, _layout: &Layout) -> Result<()> {
        Err(card::on_processor(self.name()))
    }

    fn cuda_fwd(&self, out: &mut CudaStorage, layout: &Layout) -> Result<()> {
        match out.dtype() {
            DType::F32 => self.launch::<f32>(out, layout),
            DType::BF16 => self.launch::<bf16>(out, layout),
            DType::F16 => self.launch::<f16>(out, layout),
            other => Err(candle_core::Error::msg(format!("no kernel {} for {other:?}", self.name()))),
        }
    }
}

impl Operation<'_> {
    fn launch<T: CudaDType + DeviceRepr>(&self, out: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let Given { kernel, dtype, how, room, .. } = self.given;
        let way = if self.is_wide { "wide" } else { "any" };
        let name = format!("{}_{}_{way}", kernel.name(), word(*dtype).unwrap_or_default());
        let function = out.device().get_or_load_custom_func(&name, MODULE, KERNELS)?;
        let held = self.inputs.map(|input| input.map(Tensor::storage_and_layout));
        let inputs = held.iter().map(|held| match held {
            Some((storage, layout)) => Input::new(storage, layout),
            None => Ok(Input::Nothing(0)),
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut out = out.as_cuda_slice_mut::<T>()?.slice_mut(layout.start_offset()..);
        let mut builder = function.builder();
        builder.arg(&mut out);
        for input in &inputs {
            input.push(&mut builder);
        }
        builder.arg(how);
        let config = card::launch(self.given.grid(self.is_wide), THREADS, *room)?;
        // SAFETY: `Given` holds arrays and `how` against each other; the kernel reads and writes no others.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

/// An array that a kernel reads.
enum Input<'a> {
    /// A null pointer.
    Nothing(u64),
    F32(CudaView<'a, f32>),
    Bf16(CudaView<'a, bf16>),
    F16(CudaView<'a, f16>),
}

impl<'a> Input<'a> {
    fn new(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        let Storage::Cuda(storage) = storage else {
            return Err(candle_core::Error::msg("a tensor that is not on the card"));
        };
        let from = layout.start_offset()..;
        match storage.dtype() {
            DType::F32 => Ok(Self::F32(storage.as_cuda_slice()?.slice(from))),
            DType::BF16 => Ok(Self::Bf16(storage.as_cuda_slice()?.slice(from))),
            DType::F16 => Ok(Self::F16(storage.as_cuda_slice()?.slice(from))),
            other => Err(candle_core::Error::msg(format!("no kernel reads {other:?}"))),
        }
    }

    fn push<'b: 'c, 'c>(&'b self, builder: &mut LaunchArgs<'c>) {
        match self {
            Self::Nothing(null) => builder.arg(null),
            Self::F32(numbers) => builder.arg(numbers),
            Self::Bf16(numbers) => builder.arg(numbers),
            Self::F16(numbers) => builder.arg(numbers),
        };
    }
}
