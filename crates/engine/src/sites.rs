//! All devices that a loaded model has, and which of them has which layer.

use crate::site::Site;
use crate::transfer::copy_cells;
use crate::{EngineError, RecoveryCause};
use backend::BackendError;
use model::{Layout, Model, Place};
use std::ops::Range;

/// What failed, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    pub place: Place,
    pub error: BackendError,
}

impl Fault {
    pub fn at(place: Place, error: BackendError) -> Fault {
        Fault { place, error }
    }

    /// What can be done about it, and of which accelerator it is; or the error, of which nothing can be mended by moving
    /// layers.
    pub fn of_accelerator(&self) -> Result<(RecoveryCause, usize), EngineError> {
        let cause = match self.error {
            BackendError::OutOfMemory { .. } => RecoveryCause::OutOfMemory,
            BackendError::Lost { .. } => RecoveryCause::DeviceLost,
            BackendError::Unsupported { .. } | BackendError::Invalid { .. } => return Err(self.error.clone().into()),
        };
        match self.place {
            Place::Accelerator(number) => Ok((cause, number)),
            Place::Host => Err(self.error.clone().into()),
        }
    }

    /// There is no room at `place`.
    pub fn is_full(&self, place: Place) -> bool {
        self.place == place && matches!(self.error, BackendError::OutOfMemory { .. })
    }
}

/// The places where layers can be.
pub(crate) struct Sites {
    pub host: Site,
    /// By number; none in the place of one that was lost.
    pub accelerators: Vec<Option<Site>>,
}

impl Sites {
    /// Where layer `index` is: on the host unless an accelerator has it.
    pub fn place(&self, index: usize) -> Place {
        let has = |site: &Option<Site>| site.as_ref().is_some_and(|site| site.has(index));
        self.accelerators.iter().position(has).map_or(Place::Host, Place::Accelerator)
    }

    pub fn on_accelerator(&self, index: usize) -> bool {
        self.place(index) != Place::Host
    }

    /// `None`: it was lost, or never there.
    pub fn accelerator(&self, number: usize) -> Option<&Site> {
        self.accelerators.get(number)?.as_ref()
    }

    pub fn at(&mut self, place: Place) -> Option<&mut Site> {
        match place {
            Place::Host => Some(&mut self.host),
            Place::Accelerator(number) => self.accelerators.get_mut(number)?.as_mut(),
        }
    }

    /// The site that holds layer `index`.
    pub fn of(&mut self, index: usize) -> &mut Site {
        self.of_layer(index).0
    }

    /// The site that holds layer `index`, and the one that holds its routed experts if that is another.
    pub fn of_layer(&mut self, index: usize) -> (&mut Site, Option<&mut Site>) {
        let place = self.place(index);
        let Sites { host, accelerators } = self;
        match place {
            Place::Accelerator(number) => match accelerators.get_mut(number).and_then(Option::as_mut) {
                Some(site) => {
                    // What was lent is all there.
                    let apart = !site.is_lent(index);
                    (site, Some(host).filter(|host| apart && host.has_guest(index)))
                }
                None => (host, None),
            },
            Place::Host => (host, None),
        }
    }

    /// Two of them at once. `None`: they are the same, or one was lost.
    pub fn pair(&mut self, one: Place, other: Place) -> Option<(&mut Site, &mut Site)> {
        let Sites { host, accelerators } = self;
        match (one, other) {
            (Place::Host, Place::Host) => None,
            (Place::Host, Place::Accelerator(number)) => Some((host, accelerators.get_mut(number)?.as_mut()?)),
            (Place::Accelerator(number), Place::Host) => Some((accelerators.get_mut(number)?.as_mut()?, host)),
            (Place::Accelerator(one), Place::Accelerator(other)) => {
                let [one, other] = accelerators.get_disjoint_mut([one, other]).ok()?;
                Some((one.as_mut()?, other.as_mut()?))
            }
        }
    }

    /// Places that are there, the host first.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let there = (0..self.accelerators.len()).filter(|number| self.accelerator(*number).is_some());
        let there: Vec<Place> = there.map(Place::Accelerator).collect();
        [Place::Host].into_iter().chain(there)
    }

    /// Layers elsewhere may read the cache of layer `index`: their copies of it get the cells of `positions`.
    pub fn update_copies(
        &mut self,
        index: usize,
        model: &Model,
        layout: &Layout,
        positions: Range<usize>,
    ) -> Result<(), Fault> {
        let place = self.place(index);
        for holder in self.places() {
            let Some(copy) = self.at(holder).and_then(|site| site.copy(index)) else { continue };
            let Some((from, to)) = self.pair(place, holder) else { continue };
            let Some(shape) = model.layers[index].mixer.as_ref().and_then(|mixer| mixer.part.cache()) else { continue };
            let source = from.cache(index).map_err(|error| Fault::at(place, error))?;
            let cells = layout.layers[index].cells;
            copy_cells((from, source), (to, copy), &shape, &layout.params, cells, positions.clone())?;
        }
        Ok(())
    }
}
