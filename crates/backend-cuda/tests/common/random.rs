//! Reproducible values.

use half::f16;
use quant::GgmlType;

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 ^ self.0 >> 29;
        x.wrapping_mul(0xbf58476d1ce4e5b9) >> 24
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }

    /// Evenly between -spread and spread.
    pub fn float(&mut self, spread: f32) -> f32 {
        (self.next() & 0xffffff) as f32 / 0x800000 as f32 * spread - spread
    }

    pub fn floats(&mut self, count: usize, spread: f32) -> Vec<f32> {
        (0..count).map(|_| self.float(spread)).collect()
    }

    /// Activations that 8 bits hold exactly: every 32 have one scale, a power of two, and one of them is 127 of it.
    pub fn exact_activations(&mut self, count: usize) -> Vec<f32> {
        let mut values = vec![0f32; count];
        for block in values.chunks_mut(32) {
            let scale = (2f32).powi(self.below(8) as i32 - 6);
            block.iter_mut().for_each(|x| *x = (self.below(255) as f32 - 127.0) * scale);
            let extreme = self.below(block.len());
            block[extreme] = 127.0 * scale * if self.below(2) == 0 { 1.0 } else { -1.0 };
        }
        values
    }

    /// Blocks of any bits, with scales that are no extremes.
    pub fn weights(&mut self, ty: GgmlType, values: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; ty.row_bytes(values).unwrap()];
        bytes.iter_mut().for_each(|byte| *byte = self.next() as u8);
        let halves: &[usize] = match ty {
            GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 | GgmlType::IQ4_NL | GgmlType::IQ4_XS => &[0],
            GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
            GgmlType::Q2_K => &[80, 82],
            GgmlType::Q3_K => &[108],
            GgmlType::Q6_K => &[208],
            GgmlType::IQ1_S | GgmlType::IQ2_XXS | GgmlType::IQ2_XS | GgmlType::IQ2_S => &[0],
            GgmlType::IQ3_XXS | GgmlType::IQ3_S | GgmlType::Q1_0 | GgmlType::Q2_0 => &[0],
            GgmlType::TQ1_0 => &[52],
            GgmlType::TQ2_0 => &[64],
            _ => &[],
        };
        for block in bytes.chunks_mut(ty.type_size()) {
            for at in halves {
                block[*at..at + 2].copy_from_slice(&f16::from_f32(self.float(0.5)).to_le_bytes());
            }
            match ty {
                GgmlType::MXFP4 => block[0] = (self.next() % 16) as u8 + 118,
                // The scale's nibbles are the highest of four words.
                GgmlType::IQ1_M => {
                    let bits = f16::from_f32(self.float(0.5)).to_bits();
                    for i in 0..4 {
                        let nibble = (bits >> (4 * i) & 15) as u8;
                        block[49 + 2 * i] = block[49 + 2 * i] % 16 + 16 * nibble;
                    }
                }
                GgmlType::F32 => block.copy_from_slice(&self.float(2.0).to_le_bytes()),
                GgmlType::F16 => block.copy_from_slice(&f16::from_f32(self.float(2.0)).to_le_bytes()),
                GgmlType::BF16 => block.copy_from_slice(&half::bf16::from_f32(self.float(2.0)).to_le_bytes()),
                _ => {}
            }
        }
        bytes
    }
}
