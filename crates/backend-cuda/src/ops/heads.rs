//! Heads of queries and keys between their products and attention: norm, rotary embedding, the rotation of quantized caches and
//! the way into the cache are one kernel for both and for the values, as far as these operations follow each other. What depends
//! on a rotary embedding's spec alone is computed here once.

use super::hadamard::Rotation;
use super::held::{Held, let_go};
use super::{Run, across, int, product};
use crate::arguments::{HadamardArgs, HeadsArgs, NormArgs, Part, StoreKvArgs, Stream, optional};
use crate::buffers::Span;
use crate::{Address, Driver};
use backend::{BackendError, RopePairs, RopeSpec, View};
use bytemuck::Zeroable;

const OP: &str = "Rope";
/// Heads that a block has.
const WARPS: usize = 4;
/// Values of a block that a warp rotates (`kernels/heads.cu`).
pub(super) const LARGEST: usize = 256;

/// A norm in place, of rows that one warp normalises.
pub(crate) struct SmallNorm {
    pub arguments: NormArgs,
    pub x: Span,
    /// Its weight and bias.
    pub reads: Vec<Span>,
}

/// One kind of heads, or two that are turned alike.
#[derive(Clone)]
pub(crate) struct Heads {
    arguments: HeadsArgs,
    writes: Vec<Span>,
    reads: Vec<Span>,
}

fn apart(some: &[Span], others: &[Span]) -> bool {
    !some.iter().any(|one| others.iter().any(|other| one.overlaps(*other)))
}

impl Heads {
    /// The norm of these heads, and then this. Where heads read what others of them write, order counts: then they stay two.
    fn after(&self, norm: &SmallNorm) -> Option<Heads> {
        let mut all = self.clone();
        all.reads.extend(&norm.reads);
        let NormArgs { weight, bias, dim, layer, eps, .. } = norm.arguments;
        let part = &mut all.arguments.parts[0];
        *part = Part { weight, bias, norm: 1 + layer, eps, ..*part };
        let theirs = self.writes == [norm.x] && self.arguments.head_dim == dim;
        (theirs && apart(&all.writes, &all.reads)).then_some(all)
    }

    /// These, and others that are turned alike.
    fn and(&self, others: &Heads) -> Option<Heads> {
        let mut all = self.clone();
        let (mut mine, mut theirs) = (self.arguments, others.arguments);
        let parts = [&mut mine, &mut theirs].map(|all| std::mem::replace(&mut all.parts[0], Part::zeroed()));
        let alike = bytemuck::bytes_of(&mine) == bytemuck::bytes_of(&theirs);
        all.arguments.parts = parts;
        let apart = apart(&all.writes, &others.writes);
        all.writes.extend(&others.writes);
        all.reads.extend(&others.reads);
        let one = self.arguments.parts[1].heads == 0 && self.writes.len() == 1;
        (one && alike && apart && self::apart(&all.writes, &all.reads) && all.grid().is_ok()).then_some(all)
    }

    /// These, and then the rotation of one of both kinds, if it is that.
    pub fn rotated(&self, rotation: &Rotation) -> Option<Heads> {
        let mut all = self.clone();
        let Rotation { arguments: HadamardArgs { block, scale, .. }, x } = *rotation;
        let index = self.writes.iter().position(|span| *span == x)?;
        let part = all.arguments.parts.get_mut(index).filter(|part| part.rotated == 0 && part.stored == 0)?;
        (part.rotated, part.scale) = (block, scale);
        (self.arguments.head_dim % block == 0).then_some(all)
    }

    /// These, and their way into the cache, with the values', which are rotated before if it was that. `cells` is what that may
    /// write.
    pub fn stored(&self, store: &StoreKvArgs, v: Span, rotation: Option<&Rotation>, cells: &[Span]) -> Option<Heads> {
        let mut all = self.clone();
        let StoreKvArgs { k, v: stream, k_input, v_input, n, heads, capacity, start } = *store;
        let arguments = &mut all.arguments;
        let keys = arguments.parts.iter_mut().find(|part| part.x == k_input && part.heads == heads)?;
        keys.stored = 1;
        let alike = arguments.n == n && arguments.head_dim == k.dim && arguments.heads_v == 0;
        let (v_rotated, v_scale) =
            rotation.map_or((0, 0.0), |rotation| (rotation.arguments.block, rotation.arguments.scale));
        let theirs = rotation.is_none_or(|rotation| rotation.x == v && stream.dim % v_rotated == 0);
        *arguments =
            HeadsArgs { k, v: stream, v_input, heads_v: heads, capacity, start, v_rotated, v_scale, ..*arguments };
        let apart_from = |spans: &[Span]| apart(spans, &all.writes) && apart(spans, &all.reads);
        let apart = apart_from(cells) && apart_from(&[v]) && apart(cells, &[v]);
        all.writes.extend(cells);
        all.writes.push(v);
        (alike && theirs && apart && all.grid().is_ok()).then_some(all)
    }

    fn grid(&self) -> Result<[u32; 3], BackendError> {
        let HeadsArgs { parts, n, heads_v, .. } = &self.arguments;
        let heads = parts.iter().map(|part| part.heads as usize).sum::<usize>() + *heads_v as usize;
        Ok([*n as u32, across(OP, heads.div_ceil(WARPS))?, 1])
    }

    pub fn launch<D: Driver>(&self, run: &mut Run<'_, D>) -> Result<(), BackendError> {
        let grid = self.grid()?;
        // SAFETY: all operands were checked to have these sizes when they came, and whoever frees one lets go first.
        unsafe { run.launch("heads", "heads", (grid, 32 * WARPS as u32, 0), &self.arguments) }
    }
}

/// The share of the extrapolated angle in every pair's, on the GPU.
fn table<D: Driver>(run: &mut Run<'_, D>, spec: &RopeSpec) -> Result<Address, BackendError> {
    if let Some((_, address)) = run.scratch.mixes.iter().find(|(known, _)| known == spec) {
        return Ok(*address);
    }
    let mixes: Vec<f32> = (0..spec.dims / 2).map(|i| spec.mix(i)).collect();
    let address = run.gpu.table(bytemuck::cast_slice(&mixes))?;
    run.scratch.mixes.push((*spec, address));
    Ok(address)
}

pub(crate) fn rope<D: Driver>(
    run: &mut Run<'_, D>,
    x: View,
    [n, heads, head_dim]: [usize; 3],
    spec: &RopeSpec,
    positions: View,
    factors: Option<View>,
) -> Result<(), BackendError> {
    spec.check(OP, head_dim)?;
    let half = spec.dims / 2;
    let values = product(OP, &[n, heads, half])?;
    let x = run.buffers.span_mut(OP, x, product(OP, &[n, heads, head_dim])?)?;
    let positions = run.buffers.span(OP, positions, n)?;
    let factors = factors.map(|factors| run.buffers.span(OP, factors, half)).transpose()?;
    if values == 0 {
        return Ok(());
    }
    let part = Part { x: x.address, heads: int(OP, heads)?, ..Part::zeroed() };
    let arguments = HeadsArgs {
        parts: [part, Part::zeroed()],
        positions: positions.address,
        factors: optional(factors.map(|factors| factors.address)),
        mix: table(run, spec)?,
        k: Stream::zeroed(),
        v: Stream::zeroed(),
        v_input: 0,
        n: int(OP, n)?,
        head_dim: int(OP, head_dim)?,
        half: int(OP, half)?,
        adjacent: i32::from(spec.pairs == RopePairs::Adjacent),
        step: spec.step(),
        freq_scale: spec.freq_scale,
        magnitude: spec.magnitude(),
        heads_v: 0,
        capacity: 0,
        start: 0,
        v_rotated: 0,
        v_scale: 0.0,
    };
    let new = Heads { arguments, writes: vec![x], reads: [Some(positions), factors].into_iter().flatten().collect() };
    new.grid()?;
    hold(run, new)
}

/// Holds heads together with what waits and belongs to them; lets go what does not.
fn hold<D: Driver>(run: &mut Run<'_, D>, mut new: Heads) -> Result<(), BackendError> {
    if let Some(normed) = run.held.norm.as_ref().and_then(|norm| new.after(norm)) {
        run.held.norm = None;
        new = normed;
    }
    let both = match &*run.held {
        Held { sum: None, heads: Some(first), norm: None, rotation: None } => first.and(&new),
        _ => None,
    };
    match both {
        Some(both) => run.held.heads = Some(both),
        None => {
            let_go(run)?;
            run.held.heads = Some(new);
        }
    }
    Ok(())
}
