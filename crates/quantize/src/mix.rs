//! The mixes of types that people know by name.

use quant::GgmlType;

/// A mix: a base type, and rules that give more bits to some tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum Mix {
    F32,
    F16,
    BF16,
    Q8_0,
    Q6_K,
    Q5_K_M,
    Q5_K_S,
    Q5_1,
    Q5_0,
    Q4_K_M,
    Q4_K_S,
    Q4_1,
    Q4_0,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    Q3_K_L,
    Q3_K_M,
    Q3_K_S,
    IQ3_M,
    IQ3_S,
    IQ3_XS,
    IQ3_XXS,
    Q2_K,
    Q2_K_S,
    IQ2_M,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    TQ2_0,
    IQ1_M,
    TQ1_0,
    IQ1_S,
}

use Mix::*;

/// (mix, name, `general.file_type`, base type), largest first.
const TABLE: &[(Mix, &str, u32, GgmlType)] = &[
    (F32, "F32", 0, GgmlType::F32),
    (F16, "F16", 1, GgmlType::F16),
    (BF16, "BF16", 32, GgmlType::BF16),
    (Q8_0, "Q8_0", 7, GgmlType::Q8_0),
    (Q6_K, "Q6_K", 18, GgmlType::Q6_K),
    (Q5_K_M, "Q5_K_M", 17, GgmlType::Q5_K),
    (Q5_K_S, "Q5_K_S", 16, GgmlType::Q5_K),
    (Q5_1, "Q5_1", 9, GgmlType::Q5_1),
    (Q5_0, "Q5_0", 8, GgmlType::Q5_0),
    (Q4_K_M, "Q4_K_M", 15, GgmlType::Q4_K),
    (Q4_K_S, "Q4_K_S", 14, GgmlType::Q4_K),
    (Q4_1, "Q4_1", 3, GgmlType::Q4_1),
    (Q4_0, "Q4_0", 2, GgmlType::Q4_0),
    (IQ4_NL, "IQ4_NL", 25, GgmlType::IQ4_NL),
    (IQ4_XS, "IQ4_XS", 30, GgmlType::IQ4_XS),
    (MXFP4, "MXFP4", 38, GgmlType::MXFP4),
    (Q3_K_L, "Q3_K_L", 13, GgmlType::Q3_K),
    (Q3_K_M, "Q3_K_M", 12, GgmlType::Q3_K),
    (Q3_K_S, "Q3_K_S", 11, GgmlType::Q3_K),
    (IQ3_M, "IQ3_M", 27, GgmlType::IQ3_S),
    (IQ3_S, "IQ3_S", 26, GgmlType::IQ3_S),
    (IQ3_XS, "IQ3_XS", 22, GgmlType::IQ3_S),
    (IQ3_XXS, "IQ3_XXS", 23, GgmlType::IQ3_XXS),
    (Q2_K, "Q2_K", 10, GgmlType::Q2_K),
    (Q2_K_S, "Q2_K_S", 21, GgmlType::Q2_K),
    (IQ2_M, "IQ2_M", 29, GgmlType::IQ2_S),
    (IQ2_S, "IQ2_S", 28, GgmlType::IQ2_XS),
    (IQ2_XS, "IQ2_XS", 20, GgmlType::IQ2_XS),
    (IQ2_XXS, "IQ2_XXS", 19, GgmlType::IQ2_XXS),
    (TQ2_0, "TQ2_0", 37, GgmlType::TQ2_0),
    (IQ1_M, "IQ1_M", 31, GgmlType::IQ1_M),
    (TQ1_0, "TQ1_0", 36, GgmlType::TQ1_0),
    (IQ1_S, "IQ1_S", 24, GgmlType::IQ1_S),
];

/// Other names that people use.
const ALIASES: &[(&str, Mix)] = &[("Q3_K", Q3_K_M), ("Q4_K", Q4_K_M), ("Q5_K", Q5_K_M), ("MXFP4_MOE", MXFP4)];

impl Mix {
    const fn row(self) -> &'static (Mix, &'static str, u32, GgmlType) {
        // The table is in declaration order (a test holds it so).
        &TABLE[self as usize]
    }

    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// The value of `general.file_type`.
    pub const fn file_type(self) -> u32 {
        self.row().2
    }

    /// The type of tensors that no rule singles out.
    pub const fn base(self) -> GgmlType {
        self.row().3
    }

    /// The mix with this name, in any case.
    pub fn from_name(name: &str) -> Option<Mix> {
        let named = TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(name)).map(|row| row.0);
        named.or_else(|| ALIASES.iter().find(|alias| alias.0.eq_ignore_ascii_case(name)).map(|alias| alias.1))
    }

    /// Every mix, largest first.
    pub fn all() -> impl Iterator<Item = Mix> {
        TABLE.iter().map(|row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_declaration_order_and_can_be_written() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index, "{}", row.1);
            assert_eq!(Mix::from_name(&row.1.to_lowercase()), Some(row.0));
            assert!(quant::has_quantizer(row.0.base()), "{}", row.1);
        }
        assert_eq!(Mix::from_name("Q4_K"), Some(Q4_K_M));
        assert_eq!(Mix::from_name("Q4_K_XL"), None);
    }
}
