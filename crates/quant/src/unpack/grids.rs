//! The lattices of the IQ types, one point per entry, the first value in the lowest byte.

use super::codes;

/// Replace each code of `bits` bits by its byte in `map`.
const fn expand<const N: usize>(codes: &[u16; N], bits: u32, map: &[u8]) -> [u64; N] {
    let mut grid = [0; N];
    let mut i = 0;
    while i < N {
        let mut j = 0;
        while j < 16 / bits {
            let code = (codes[i] >> (j * bits)) as usize & ((1 << bits) - 1);
            grid[i] |= (map[code] as u64) << (8 * j);
            j += 1;
        }
        i += 1;
    }
    grid
}

const fn expand4<const N: usize>(codes: &[u16; N], map: &[u8; 8]) -> [u32; N] {
    let wide = expand(codes, 4, map);
    let mut grid = [0; N];
    let mut i = 0;
    while i < N {
        grid[i] = wide[i] as u32;
        i += 1;
    }
    grid
}

/// Magnitudes of the 2-bit types (code 3 does not occur).
const IQ2_MAP: [u8; 3] = [8, 25, 43];

/// 8 magnitudes per point.
pub static IQ2_XXS_GRID: [u64; 256] = expand(&codes::IQ2_XXS, 2, &IQ2_MAP);
/// 8 magnitudes per point.
pub static IQ2_XS_GRID: [u64; 512] = expand(&codes::IQ2_XS, 2, &IQ2_MAP);
/// 8 magnitudes per point.
pub static IQ2_S_GRID: [u64; 1024] = expand(&codes::IQ2_S, 2, &IQ2_MAP);
/// 4 magnitudes per point.
pub static IQ3_XXS_GRID: [u32; 256] = expand4(&codes::IQ3_XXS, &[4, 12, 20, 28, 36, 44, 52, 62]);
/// 4 magnitudes per point.
pub static IQ3_S_GRID: [u32; 512] = expand4(&codes::IQ3_S, &[1, 3, 5, 7, 9, 11, 13, 15]);
/// 8 values (i8: -1, 0 or 1) per point; IQ1_S and IQ1_M.
pub static IQ1_GRID: [u64; 2048] = expand(&codes::IQ1_S, 2, &[255, 0, 1]);

/// Sign bits of 8 elements from the 7 stored ones: the number of negative elements is even.
pub static SIGNS: [u8; 128] = {
    let mut signs = [0; 128];
    let mut i = 0;
    while i < 128 {
        signs[i] = i as u8 | ((i.count_ones() & 1) << 7) as u8;
        i += 1;
    }
    signs
};
