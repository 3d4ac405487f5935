use crate::SamplerError;
use serde::{Deserialize, Serialize};

/// Sampling parameters. [`Sampler::new`](crate::Sampler::new) checks them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Params {
    /// Divides the logits, 0 to 100. 0: always the likeliest token.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens. 0: all.
    pub top_k: u32,
    /// Keep the fewest tokens whose probabilities sum to this, 0 to 1. 1: all.
    pub top_p: f32,
    /// Keep tokens at least this many times as likely as the likeliest, 0 to 1. 0: all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens, 0.01 to 100. 1: off.
    pub repeat_penalty: f32,
    /// How many of the last tokens the three penalties look at. 0: none.
    pub repeat_last_n: u32,
    /// Subtracted from the logit of a recent token, -100 to 100. 0: off.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a recent token once per occurrence, -100 to 100. 0: off.
    pub frequency_penalty: f32,
    /// The same seed gives the same tokens.
    pub seed: u64,
    /// Added to the logit of a token, -100 to 100. Tokens outside the vocabulary are ignored.
    pub logit_bias: Vec<(u32, f32)>,
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
            logit_bias: Vec::new(),
        }
    }
}

impl Params {
    /// Names the first parameter that is outside its range.
    pub fn validate(&self) -> Result<(), SamplerError> {
        in_range("temperature", self.temperature, 0.0, 100.0)?;
        in_range("top_p", self.top_p, 0.0, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        in_range("repeat_penalty", self.repeat_penalty, 0.01, 100.0)?;
        in_range("presence_penalty", self.presence_penalty, -100.0, 100.0)?;
        in_range("frequency_penalty", self.frequency_penalty, -100.0, 100.0)?;
        self.logit_bias.iter().try_for_each(|&(_, bias)| in_range("logit_bias", bias, -100.0, 100.0))
    }

    pub(crate) fn penalizes(&self) -> bool {
        self.repeat_last_n > 0
            && (self.repeat_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0)
    }
}

/// NaN is in no range.
fn in_range(name: &'static str, value: f32, min: f32, max: f32) -> Result<(), SamplerError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    // Through text: 0.01 as f32 is 0.009999999776 as f64.
    let widen = |x: f32| x.to_string().parse().unwrap_or(f64::from(x));
    Err(SamplerError::OutOfRange { name, value: widen(value), min: widen(min), max: widen(max) })
}
