use crate::Op;
use quant::GgmlType;

/// What an operation asks of a device besides buffers and plain arithmetic on f32: what a device may lack, and what its
/// scratch memory depends on. It is known before anything is loaded ([`crate::Device::scratch`] answers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Op::MatMul`] of f32 [n, cols] with a matrix of type `ty`.
    MatMul { ty: GgmlType, n: usize, cols: usize },
    /// [`Op::ExpertMatMul`] of f32 [inputs, cols], each row of which meets `slots / inputs` matrices of type `ty`.
    ExpertMatMul { ty: GgmlType, inputs: usize, slots: usize, cols: usize },
    /// [`Op::Route`] among so many experts.
    Route { experts: usize },
    /// [`Op::StoreKv`] and [`Op::Attention`] of `n` rows that see at most `cells` cells.
    Attention {
        k_type: GgmlType,
        /// As `k_type` where values are a part of the keys.
        v_type: GgmlType,
        head_count: usize,
        head_count_kv: usize,
        head_dim_k: usize,
        head_dim_v: usize,
        n: usize,
        cells: usize,
    },
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Need::MatMul { ty, .. } => write!(f, "weights of type {ty}"),
            Need::ExpertMatMul { ty, .. } => write!(f, "experts of type {ty}"),
            Need::Route { experts } => write!(f, "a choice among {experts} experts"),
            Need::Attention { k_type, v_type, head_dim_k, head_dim_v, .. } => {
                write!(f, "attention with a cache of {k_type} and {v_type} and heads of {head_dim_k} and {head_dim_v}")
            }
        }
    }
}

impl Op<'_> {
    /// What the operation needs; nothing, if every device can do it.
    pub fn needs(&self) -> Vec<Need> {
        match *self {
            Op::MatMul { n, products, .. } => {
                let need = |weight: &crate::Weight| Need::MatMul { ty: weight.ty, n, cols: weight.cols };
                products.iter().map(|linear| need(&linear.weight)).collect()
            }
            Op::ExpertMatMul { input_per_slot, n, used, weight, .. } => {
                let (inputs, slots) = (if input_per_slot { n * used } else { n }, n * used);
                vec![Need::ExpertMatMul { ty: weight.ty, inputs, slots, cols: weight.cols }]
            }
            Op::Route { router, .. } => vec![Need::Route { experts: router.experts }],
            Op::Attention { cache, spec, n, start, .. } => vec![Need::Attention {
                k_type: cache.k_type,
                v_type: if cache.v.is_some() { cache.v_type } else { cache.k_type },
                head_count: spec.head_count,
                head_count_kv: cache.head_count_kv,
                head_dim_k: cache.head_dim_k,
                head_dim_v: cache.head_dim_v,
                n,
                cells: if spec.window == 0 { start + n } else { (start + n).min(spec.window + n) },
            }],
            _ => Vec::new(),
        }
    }
}
