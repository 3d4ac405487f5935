//! Which GPUs take layers, in the words of people and in those of the driver.

use crate::wire::{GpuChoice, GpuName};

impl GpuChoice {
    /// What these words mean: numbers in `gpus`, ids, or parts of names that only one of them has; or "all". GPUs come in the
    /// order in which they are named.
    ///
    /// # Errors
    /// The word that means none of them, or more than one.
    pub fn named<'a>(words: &'a [String], gpus: &[GpuName]) -> Result<GpuChoice, &'a str> {
        if words.iter().any(|word| word.eq_ignore_ascii_case("all")) {
            return Ok(GpuChoice::All);
        }
        let mut chosen: Vec<GpuName> = Vec::new();
        for word in words {
            let gpu = pick(gpus, word).ok_or(word.as_str())?;
            if !chosen.contains(gpu) {
                chosen.push(gpu.clone());
            }
        }
        Ok(GpuChoice::Only { gpus: chosen })
    }

    /// The ids of those that are chosen; `None`: all that there are.
    pub(crate) fn ids(&self) -> Option<Vec<String>> {
        match self {
            GpuChoice::All => None,
            GpuChoice::Only { gpus } => Some(gpus.iter().map(|gpu| gpu.id.clone()).collect()),
        }
    }
}

/// By number, by id, or by a part of the name that only one of them has.
fn pick<'a>(gpus: &'a [GpuName], wanted: &str) -> Option<&'a GpuName> {
    let by_number = wanted.parse().ok().and_then(|number: usize| gpus.get(number));
    let lower = wanted.to_lowercase();
    let has = |gpu: &&GpuName| gpu.id.eq_ignore_ascii_case(wanted) || gpu.name.to_lowercase().contains(&lower);
    let mut named = gpus.iter().filter(has);
    let only = named.next().filter(|_| named.next().is_none());
    let exact = gpus.iter().find(|gpu| gpu.name.eq_ignore_ascii_case(wanted));
    by_number.or(exact).or(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus() -> Vec<GpuName> {
        let gpus = [("GPU-aa", "GeForce RTX 4060"), ("GPU-bb", "GeForce RTX 4060 Ti"), ("GPU-cc", "RTX A2000")];
        gpus.map(|(id, name)| GpuName { id: id.into(), name: name.into() }).into()
    }

    #[test]
    fn a_gpu_is_meant_by_number_id_or_name() {
        let gpus = gpus();
        let found = |wanted| pick(&gpus, wanted).map(|gpu| gpu.id.as_str());
        assert_eq!((found("0"), found("2"), found("3")), (Some("GPU-aa"), Some("GPU-cc"), None));
        assert_eq!(
            (found("a2000"), found("4060 ti"), found("gpu-bb")),
            (Some("GPU-cc"), Some("GPU-bb"), Some("GPU-bb"))
        );
        assert_eq!(found("GeForce RTX 4060"), Some("GPU-aa"), "the whole name of one, a part of another's");
        assert_eq!((found("geforce"), found("x")), (None, None));
        assert_eq!(pick(&[], "0"), None);
    }

    #[test]
    fn several_are_meant_in_their_order_each_once() {
        let named = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            GpuChoice::named(&words, &gpus()).map(|choice| choice.ids()).map_err(str::to_owned)
        };
        let are = |ids: &[&str]| Ok(Some(ids.iter().map(|id| id.to_string()).collect::<Vec<_>>()));
        assert_eq!(named(&["2", "gpu-aa", "A2000"]), are(&["GPU-cc", "GPU-aa"]));
        assert_eq!(named(&["1", "ALL"]), Ok(None));
        assert_eq!(named(&["1", "Radeon", "x"]), Err("Radeon".into()));
        assert_eq!(named(&[]), are(&[]));
    }
}
