//! Activations rounded to 8 bits, in scratch memory, for products with packed weights. It is remembered of which range that
//! memory holds the rounding, until something writes to either: what several products read is rounded once, and what makes it
//! may round it itself.

use super::matmul::ACTIVATIONS;
use super::{Run, int};
use crate::arguments::QuantizeArgs;
use crate::buffers::Span;
use crate::{Address, Driver};
use backend::BackendError;

const OP: &str = "MatMul";
/// Bytes of the values that are rounded together.
const BLOCK: u64 = 128;
/// Starts of ranges that products had to round: a model has a few.
const MOST: usize = 32;

/// Bytes of the rounding of a range of whole blocks.
fn size(range: Span) -> u64 {
    range.bytes / BLOCK * ACTIVATIONS as u64
}

/// Scratch memory for a product: the rounding of `input`, which is made unless it is there, and behind it so many bytes with
/// any contents.
pub(super) fn rounded<D: Driver>(
    run: &mut Run<'_, D>,
    input: Option<Span>,
    behind: u64,
) -> Result<[Address; 2], BackendError> {
    let rounding = input.map_or(0, size);
    let bytes = rounding + behind;
    if bytes == 0 {
        return Ok([0; 2]);
    }
    let held = run.buffers.unwritten();
    if let (Some(address), true) = (run.scratch.products.start(bytes), held.is_some() && held == input) {
        return Ok([address, address + rounding]);
    }
    run.buffers.watch(None);
    let address = run.gpu.scratch(&mut run.scratch.products, bytes)?;
    if let Some(input) = input {
        let wanted = &mut run.scratch.wanted;
        if !wanted.contains(&input.address) {
            wanted.truncate(MOST - 1);
            wanted.insert(0, input.address);
        }
        quantize(run, input, address)?;
        run.buffers.watch(Some(input));
    }
    Ok([address, address + rounding])
}

fn quantize<D: Driver>(run: &mut Run<'_, D>, input: Span, out: Address) -> Result<(), BackendError> {
    let blocks = input.bytes / BLOCK;
    let arguments = QuantizeArgs { input: input.address, out, blocks: blocks as i64 };
    let grid = [int(OP, blocks.div_ceil(8) as usize)? as u32, 1, 1];
    // SAFETY: the input is a range of a live buffer, the scratch memory has room for as many blocks as are made (the caller).
    unsafe { run.launch("quantize", "quantize", (grid, 256, 0), &arguments) }
}

/// Where the kernel that makes `out` is to write its rounding too, or 0: where products had to round what lay there, and as far
/// as scratch memory has room. The kernel has `block` values side by side. Once it is launched, [`made`] is told.
pub(super) fn beside<D: Driver>(run: &mut Run<'_, D>, out: Span, block: usize) -> Address {
    if out.bytes == 0 || block % 32 != 0 || !run.scratch.wanted.contains(&out.address) {
        return 0;
    }
    let Some(address) = run.scratch.products.start(size(out)) else { return 0 };
    run.buffers.watch(None);
    address
}

/// The kernel that makes `out` has been launched, with what [`beside`] said.
pub(super) fn made<D: Driver>(run: &Run<'_, D>, out: Span, rounded: Address) {
    if rounded != 0 {
        run.buffers.watch(Some(out));
    }
}
