//! Operations that wait for the next ones, with which they may be one kernel: on a fast GPU a small kernel costs the same
//! whatever it does. Their operands are checked already. Whoever does anything else lets them go first.

use super::hadamard::Rotation;
use super::heads::{Heads, SmallNorm};
use super::{Run, elementwise};
use crate::Driver;
use crate::arguments::ZipArgs;
use crate::buffers::Span;
use backend::BackendError;

/// A sum, whose norm may come next.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    pub arguments: ZipArgs,
    pub a: Span,
    pub b: Span,
    pub out: Span,
}

impl Sum {
    /// Whether a norm of the sum to `out`, which reads these too, may be computed with it row by row: then rows are written
    /// before other rows are read.
    pub fn before_norm(&self, out: Span, reads: &[Span]) -> bool {
        let rows = |input: Span| out.address == input.address || !out.overlaps(input);
        rows(self.a) && rows(self.b) && !reads.iter().any(|read| read.overlaps(self.out))
    }
}

/// What waits, in the order in which it came: a sum alone; or heads and one thing more.
#[derive(Default)]
pub(crate) struct Held {
    pub sum: Option<Sum>,
    pub heads: Option<Heads>,
    pub norm: Option<SmallNorm>,
    pub rotation: Option<Rotation>,
}

/// Launches what waits.
pub(crate) fn let_go<D: Driver>(run: &mut Run<'_, D>) -> Result<(), BackendError> {
    let Held { sum, heads, norm, rotation } = std::mem::take(run.held);
    if let Some(sum) = sum {
        elementwise::launch_add(run, &sum)?;
    }
    if let Some(heads) = heads {
        heads.launch(run)?;
    }
    if let Some(norm) = norm {
        elementwise::launch_norm(run, norm.arguments, norm.x)?;
    }
    match rotation {
        Some(rotation) => rotation.launch(run),
        None => Ok(()),
    }
}
