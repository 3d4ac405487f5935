//! The arguments of the kernels: twins of the structs in `kernels`, member for member. `Pod` proves that nothing is padded;
//! the tests prove that sizes agree.

use crate::Address;
use bytemuck::{Pod, Zeroable};

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Pod, Zeroable)]
            pub(crate) struct $name {
                $(pub $field: $ty,)*
            }
        )*
    };
}

arguments! {
    QuantizeArgs { input: Address, out: Address, blocks: i64, }

    ProductArgs {
        weight: Address,
        input: Address,
        bias: Address,
        scales: Address,
        ids: Address,
        tiles: Address,
        order: Address,
        table: Address,
        out: Address,
        row_bytes: i64,
        expert_bytes: i64,
        scale: f32,
        rows: i32,
        cols: i32,
        n: i32,
        slots: i32,
        experts: i32,
    }

    /// A further matrix of the same launch (`kernels/product.h`).
    Further { weight: Address, bias: Address, out: Address, scale: f32, rows: i32, }

    VectorArgs { product: ProductArgs, further: [Further; 2], }

    GroupArgs {
        ids: Address,
        order: Address,
        tiles: Address,
        slots: i32,
        experts: i32,
        side: i32,
        unused: i32,
    }

    NormArgs {
        input: Address,
        a: Address,
        b: Address,
        weight: Address,
        bias: Address,
        out: Address,
        rounded: Address,
        rows: i32,
        dim: i32,
        layer: i32,
        eps: f32,
        scale: f32,
        unused: i32,
    }

    Stream { cells: Address, row_bytes: i64, ty: i32, dim: i32, }

    Part {
        x: Address,
        weight: Address,
        bias: Address,
        heads: i32,
        norm: i32,
        eps: f32,
        stored: i32,
        rotated: i32,
        scale: f32,
    }

    HeadsArgs {
        parts: [Part; 2],
        positions: Address,
        factors: Address,
        mix: Address,
        k: Stream,
        v: Stream,
        v_input: Address,
        n: i32,
        head_dim: i32,
        half: i32,
        adjacent: i32,
        step: f32,
        freq_scale: f32,
        magnitude: f32,
        heads_v: i32,
        capacity: i32,
        start: i32,
        v_rotated: i32,
        v_scale: f32,
    }

    StoreKvArgs {
        k: Stream,
        v: Stream,
        k_input: Address,
        v_input: Address,
        n: i32,
        heads: i32,
        capacity: i32,
        start: i32,
    }

    AttentionArgs {
        k: Stream,
        v: Stream,
        q: Address,
        sinks: Address,
        out: Address,
        rounded: Address,
        partial: Address,
        n: i32,
        start: i32,
        heads: i32,
        heads_kv: i32,
        capacity: i32,
        window: i32,
        first_split: i32,
        splits: i32,
        scale: f32,
        softcap: f32,
    }

    GluArgs {
        gate: Address,
        up: Address,
        out: Address,
        rounded: Address,
        stride: i64,
        rows: i32,
        dim: i32,
        act: i32,
        alpha: f32,
        limit: f32,
        unused: i32,
    }

    ZipArgs { a: Address, b: Address, out: Address, rounded: Address, len: i64, scale: f32, unused: i32, }

    MapArgs { x: Address, rounded: Address, len: i64, factor: f32, act: i32, alpha: f32, limit: f32, }

    HadamardArgs { x: Address, rounded: Address, block: i32, scale: f32, }

    ScaleArgs { x: Address, factors: Address, rows: i32, dim: i32, }

    MixArgs {
        input: Address,
        weights: Address,
        out: Address,
        out_stride: i64,
        n: i32,
        inputs: i32,
        outputs: i32,
        dim: i32,
        offset: f32,
        unused: i32,
    }

    MatchLengthArgs { x: Address, like: Address, like_stride: i64, rows: i32, dim: i32, }

    SparsifyArgs { x: Address, rows: i32, dim: i32, deviations: f32, unused: i32, }

    CopyRowsArgs { input: Address, out: Address, input_stride: i64, out_stride: i64, rows: i32, dim: i32, }

    RouteArgs {
        logits: Address,
        bias: Address,
        ids: Address,
        weights: Address,
        n: i32,
        experts: i32,
        used: i32,
        gating: i32,
        normalize: i32,
        groups: i32,
        groups_used: i32,
        scale: f32,
    }

    ConvArgs {
        input: Address,
        weight: Address,
        bias: Address,
        before: Address,
        after: Address,
        out: Address,
        n: i32,
        channels: i32,
        kernel: i32,
        act: i32,
        alpha: f32,
        limit: f32,
    }

    DeltaNetArgs {
        qkv: Address,
        alpha: Address,
        beta: Address,
        dt_bias: Address,
        decay: Address,
        before: Address,
        after: Address,
        out: Address,
        n: i32,
        heads_k: i32,
        heads_v: i32,
        dim: i32,
        tiled: i32,
        eps: f32,
    }

    StateSpaceArgs {
        xbc: Address,
        dt: Address,
        dt_bias: Address,
        decay: Address,
        skip: Address,
        before: Address,
        after: Address,
        out: Address,
        n: i32,
        heads: i32,
        dim: i32,
        size: i32,
        groups: i32,
        unused: i32,
    }

    CombineArgs { input: Address, weights: Address, out: Address, n: i32, used: i32, dim: i32, unused: i32, }
}

/// A pointer that may be null.
pub(crate) fn optional(address: Option<Address>) -> Address {
    address.unwrap_or(0)
}
