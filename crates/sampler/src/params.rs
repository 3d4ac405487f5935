use serde::{Deserialize, Serialize};

/// How tokens are chosen. Defaults are those of the field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Params {
    /// 0: always the likeliest token. Otherwise logits are divided by it.
    pub temperature: f32,
    /// Only the likeliest `top_k` tokens; 0: all.
    pub top_k: u32,
    /// Only the likeliest tokens that together reach this probability; 1: all.
    pub top_p: f32,
    /// Only tokens at least this likely, relative to the likeliest; 0: all.
    pub min_p: f32,
    /// Logits of recent tokens are divided (if positive) or multiplied by it; 1: off.
    pub repeat_penalty: f32,
    /// How many of the last tokens the penalties look at; 0: off.
    pub repeat_last_n: u32,
    /// Subtracted from the logits of recent tokens, once; 0: off.
    pub presence_penalty: f32,
    /// Subtracted from the logits of recent tokens for each time they occur; 0: off.
    pub frequency_penalty: f32,
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplerError {
    #[error("{name} is {value}; it must be {allowed}")]
    OutOfRange { name: &'static str, value: f32, allowed: &'static str },
    #[error("the model gave no usable logits (all are NaN or minus infinity): its file may be damaged")]
    NoLogits,
}

impl Params {
    /// # Errors
    /// A value outside its range, or not a number.
    pub fn check(&self) -> Result<(), SamplerError> {
        let checks: [(&'static str, f32, bool, &'static str); 6] = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "from 0 to 100"),
            ("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "from 0 to 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            ("repeat_penalty", self.repeat_penalty, (0.01..=100.0).contains(&self.repeat_penalty), "from 0.01 to 100"),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.abs() <= 100.0, "from -100 to 100"),
            ("frequency_penalty", self.frequency_penalty, self.frequency_penalty.abs() <= 100.0, "from -100 to 100"),
        ];
        match checks.into_iter().find(|(_, _, good, _)| !good) {
            Some((name, value, _, allowed)) => Err(SamplerError::OutOfRange { name, value, allowed }),
            None => Ok(()),
        }
    }
}
