//! Which memory each layer is in: the host's, or that of one of the accelerators.

/// A memory that layers can be in, and the device that computes them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Host,
    /// By number, from 0 on.
    Accelerator(usize),
}

/// Accelerators that one model can be on.
pub const MAX_ACCELERATORS: usize = 8;

/// How many layers are on each accelerator. Neighbours stay together: the first accelerator has the end of the model, the
/// next one what comes before that, so that the stream goes from one to the next once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split(pub [u32; MAX_ACCELERATORS]);

impl Split {
    /// Layers on all accelerators.
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, layers| sum.saturating_add(*layers))
    }
}

/// All on the first accelerator.
impl From<u32> for Split {
    fn from(layers: u32) -> Split {
        let mut split = Split::default();
        split.0[0] = layers;
        split
    }
}

/// Where every layer is. The first `cpu_moe` of the model's layers leave their routed experts on the host, wherever the
/// rest of them is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// By layer, the output layer last.
    places: Vec<Place>,
    pub cpu_moe: usize,
}

impl Placement {
    /// As many layers as asked for, or all there are, each of them whole, on one accelerator: the last of the model first,
    /// the output layer after all others.
    pub fn new(gpu_layers: usize, block_count: usize) -> Placement {
        Placement::split(gpu_layers.min(u32::MAX as usize).try_into().unwrap_or(u32::MAX), block_count)
    }

    /// The same on several.
    pub fn split(split: impl Into<Split>, block_count: usize) -> Placement {
        let split = split.into();
        let mut places = vec![Place::Host; block_count + 1];
        let total = (split.total() as usize).min(block_count + 1);
        // From the end of the model back; the output layer is that end only where all layers are on accelerators.
        let blocks = block_count - total.min(block_count)..block_count;
        let from_the_end = (block_count..total.max(block_count)).chain(blocks.rev());
        let on = split.0.iter().enumerate().flat_map(|(number, count)| std::iter::repeat_n(number, *count as usize));
        for (index, number) in from_the_end.zip(on) {
            places[index] = Place::Accelerator(number);
        }
        Placement { places, cpu_moe: 0 }
    }

    /// Every layer as it is told, the output layer last.
    pub fn at(places: impl IntoIterator<Item = Place>) -> Placement {
        Placement { places: places.into_iter().collect(), cpu_moe: 0 }
    }

    /// The same with the experts of the first `cpu_moe` layers on the host.
    #[must_use]
    pub fn with_cpu_moe(self, cpu_moe: usize) -> Placement {
        Placement { cpu_moe: cpu_moe.min(self.block_count()), ..self }
    }

    /// Layers without the output layer.
    pub fn block_count(&self) -> usize {
        self.places.len().saturating_sub(1)
    }

    /// Where layer `index` is (`block_count` is the output layer).
    pub fn place(&self, index: usize) -> Place {
        self.places.get(index).copied().unwrap_or(Place::Host)
    }

    /// Puts a layer elsewhere.
    pub fn set(&mut self, index: usize, place: Place) {
        if let Some(at) = self.places.get_mut(index) {
            *at = place;
        }
    }

    pub fn on_accelerator(&self, index: usize) -> bool {
        self.place(index) != Place::Host
    }

    /// Whether any layer is there.
    pub fn has(&self, place: Place) -> bool {
        self.places.contains(&place)
    }

    /// Layers there, the output layer counted.
    pub fn count(&self, place: Place) -> usize {
        self.places.iter().filter(|at| **at == place).count()
    }

    /// Layers on accelerators.
    pub fn gpu_layers(&self) -> usize {
        self.places.len() - self.count(Place::Host)
    }

    /// How many layers each accelerator has.
    pub fn shares(&self) -> Split {
        let mut split = Split::default();
        for (number, layers) in split.0.iter_mut().enumerate() {
            *layers = self.count(Place::Accelerator(number)) as u32;
        }
        split
    }

    /// The places that have layers, in order.
    pub fn used(&self) -> Vec<Place> {
        let mut used = self.places.clone();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// How often the stream goes from one accelerator to another on its way through the layers.
    pub fn crossings(&self) -> usize {
        let both = |pair: &&[Place]| pair[0] != pair[1] && !pair.contains(&Place::Host);
        self.places.windows(2).filter(both).count()
    }

    /// Whether layer `index` is on an accelerator but for its routed experts, if it has any.
    pub fn without_experts(&self, index: usize) -> bool {
        index < self.cpu_moe && self.on_accelerator(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(placement: &Placement) -> String {
        let name = |index| match placement.place(index) {
            Place::Host => "h".to_owned(),
            Place::Accelerator(number) => number.to_string(),
        };
        (0..=placement.block_count()).map(name).collect()
    }

    fn split(layers: &[u32]) -> Split {
        let mut split = Split::default();
        split.0[..layers.len()].copy_from_slice(layers);
        split
    }

    #[test]
    fn the_first_accelerator_has_the_end_of_the_model() {
        let of = |layers: &[u32]| numbers(&Placement::split(split(layers), 5));
        assert_eq!(
            [of(&[]), of(&[2]), of(&[5]), of(&[6]), of(&[99])],
            ["hhhhhh", "hhh00h", "00000h", "000000", "000000"]
        );
        assert_eq!([of(&[2, 1]), of(&[2, 3]), of(&[2, 4]), of(&[2, 99])], ["hh100h", "11100h", "111100", "111100"]);
        assert_eq!([of(&[0, 2]), of(&[1, 0, 5]), of(&[1, 2, 1])], ["hhh11h", "222220", "h2110h"]);
        assert_eq!(numbers(&Placement::new(usize::MAX, 2)), "000");
        assert_eq!(numbers(&Placement::split(split(&[u32::MAX, u32::MAX]), 2)), "000");
    }

    #[test]
    fn shares_are_what_was_split() {
        for layers in [&[][..], &[3], &[2, 4], &[0, 1, 5], &[1, 1, 1, 1]] {
            let placement = Placement::split(split(layers), 5);
            assert_eq!(placement.shares(), split(layers));
            assert_eq!(placement.gpu_layers() as u32, split(layers).total());
        }
        let mut holes = Placement::split(split(&[2, 2]), 5);
        assert_eq!((holes.crossings(), holes.used().len()), (1, 3));
        holes.set(3, Place::Host);
        assert_eq!((holes.crossings(), holes.gpu_layers(), holes.has(Place::Accelerator(1))), (0, 3, true));
        assert_eq!(numbers(&holes), "h11h0h");
    }
}
