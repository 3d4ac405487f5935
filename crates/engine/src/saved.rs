//! What a model remembers of a sequence, off the devices: saved to any writer and put back, bit by bit.
//!
//! The format, little-endian: [`MAGIC`]; the [`fingerprint`] of model and settings u64; bytes of all cells and states u64;
//! tokens, tokens written, states u32; the tokens u32 each; the positions of the states u32 each; for each layer that has them the held cells of K, of V (head
//! by head, in order of positions) and the states; a [`Checksum`] of everything before it u64. The sizes of all parts
//! follow from the header and from [`model::Layout`], so where layers lie, and how much room a cache has for more, does
//! not matter.

use crate::checkpoint::States;
use crate::checksum::Checksum;
use crate::core::{Core, Loaded};
use crate::sites::Fault;
use crate::transfer::{PIECE, rows, runs};
use crate::{EngineError, SavedError};
use backend::{BackendError, BufferId, Device};
use model::{Mixer, STATE_SLOTS};
use std::io::{Read, Write};
use std::ops::Range;

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"HRKVSEQ\x01";
/// Magic, fingerprint, size, three counts; checksum.
const FIXED: u64 = 8 + 8 + 8 + 3 * 4 + 8;

/// What the caches hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub tokens: u32,
    /// Bytes that saving it takes.
    pub bytes: u64,
}

/// What tells a sequence of this model from others: the model's description, a little of its weights, the types of the
/// cache, and the version of the program, because another one may compute otherwise.
pub(crate) fn fingerprint(loaded: &Loaded) -> u64 {
    let Loaded { model, layout, file } = loaded;
    let mut sum = Checksum::default();
    sum.update(env!("CARGO_PKG_VERSION").as_bytes());
    sum.update(format!("{model:?} {:?} {:?}", layout.params.kv_type_k, layout.params.kv_type_v).as_bytes());
    for layer in &model.layers {
        let rope = match layer.mixer.as_ref().map(|mixer| &mixer.part) {
            Some(Mixer::Attention(attention)) => attention.rope,
            Some(Mixer::Latent(latent)) => Some(latent.rope),
            _ => None,
        };
        // Which of the divisors are used depends on the context.
        sum.update(&[u8::from(rope.is_some_and(|rope| rope.factors_for(layout.params.context) == rope.factors))]);
    }
    for (tensor, range) in samples(loaded) {
        if let Ok(bytes) = file.raw(&tensor)
            && let Some(sample) = bytes.get(range)
        {
            sum.update(sample);
        }
    }
    sum.finish()
}

/// A piece of the middle of some tensors all over the model: of another model of the same shape they are others.
fn samples(loaded: &Loaded) -> Vec<(model::Tensor, Range<usize>)> {
    let tensors: Vec<model::Tensor> = loaded.model.layers.iter().flat_map(|layer| layer.tensors()).collect();
    let every = tensors.len().div_ceil(64).max(1);
    let middle = |tensor: &model::Tensor| {
        let (len, piece) = (tensor.bytes as usize, 1024.min(tensor.bytes as usize));
        (len - piece) / 2..(len - piece) / 2 + piece
    };
    tensors.into_iter().step_by(every).map(|tensor| (tensor, middle(&tensor))).collect()
}

/// A failure, of a device or of what was saved.
pub(crate) enum Failure {
    Device(Fault),
    Saved(SavedError),
}

/// What is done with a piece of a buffer.
type Visit<'a> = dyn FnMut(&mut dyn Device, BufferId, Range<u64>) -> Result<(), Result<BackendError, SavedError>> + 'a;

impl Core {
    pub fn remembered(&self) -> Remembered {
        let states = self.state_positions().len();
        let bytes = FIXED + 4 * (self.computed + states) as u64 + self.sequence_bytes(states);
        Remembered { tokens: self.computed as u32, bytes: if self.computed == 0 { 0 } else { bytes } }
    }

    fn sequence_bytes(&self, states: usize) -> u64 {
        self.loaded.layout.sequence_bytes(self.computed, self.written, states)
    }

    fn state_positions(&self) -> Vec<(usize, usize)> {
        if self.loaded.layout.is_recurrent() { self.states.slots(self.computed) } else { Vec::new() }
    }

    /// Writes what [`Core::remembered`] says; the sequence stays as it is.
    pub fn save(&mut self, fingerprint: u64, out: &mut dyn Write) -> Result<(), EngineError> {
        let mut out = Summing { inner: out, sum: Checksum::default() };
        let states = self.state_positions();
        let mut header = Vec::from(MAGIC);
        header.extend(fingerprint.to_le_bytes());
        header.extend(self.sequence_bytes(states.len()).to_le_bytes());
        let counts = [self.computed, self.written, states.len()];
        let ids = self.sequence[..self.computed].iter().copied();
        let positions = states.iter().map(|(position, _)| *position as u32);
        header.extend(counts.into_iter().map(|n| n as u32).chain(ids).chain(positions).flat_map(u32::to_le_bytes));
        out.write(&header)?;
        let mut staging = Vec::new();
        let slots: Vec<usize> = states.iter().map(|(_, slot)| *slot).collect();
        let result = self.each_piece(self.computed, self.written, &slots, &mut |device, buffer, range| {
            staging.resize((range.end - range.start) as usize, 0);
            device.read(buffer, range.start, &mut staging).map_err(Ok)?;
            out.write(&staging).map_err(Err)
        });
        self.mend(result)?;
        let sum = out.sum.clone().finish();
        Ok(out.write(&sum.to_le_bytes())?)
    }

    /// Puts back what was saved, in the place of the sequence that is there. On an error nothing is remembered.
    pub fn restore(&mut self, fingerprint: u64, input: &mut dyn Read) -> Result<(), EngineError> {
        self.forget();
        let mut input = Summing { inner: input, sum: Checksum::default() };
        let header = Header::read(&mut input, fingerprint, &self.loaded)?;
        let (computed, written) = (header.ids.len(), header.written);
        let mut staging = Vec::new();
        let slots: Vec<usize> = (0..header.states.len()).collect();
        let result = self.each_piece(computed, written, &slots, &mut |device, buffer, range| {
            staging.resize((range.end - range.start) as usize, 0);
            input.read(&mut staging).map_err(Err)?;
            device.write(buffer, range.start, &staging).map_err(Ok)
        });
        let result = result.and_then(|()| self.refresh_copies(computed, written));
        self.mend(result)?;
        let found = input.sum.clone().finish();
        if u64::from_le_bytes(input.array()?) != found {
            return Err(SavedError::Damaged("its checksum is another").into());
        }
        if input.inner.read(&mut [0]).map_err(SavedError::Io)? != 0 {
            return Err(SavedError::Damaged("it goes on after its end").into());
        }
        self.states = States::placed(&header.states);
        self.sequence = header.ids;
        (self.computed, self.written) = (computed, written);
        Ok(())
    }

    /// Visits everything that a sequence leaves in the layers, in pieces, in the order of the format.
    fn each_piece(
        &mut self,
        computed: usize,
        written: usize,
        slots: &[usize],
        visit: &mut Visit<'_>,
    ) -> Result<(), Failure> {
        let Loaded { model, layout, .. } = &*self.loaded;
        for (index, bytes) in layout.layers.iter().enumerate() {
            let place = self.sites.place(index);
            let failed = |error| Failure::Device(Fault::at(place, error));
            let mut visit = |device: &mut dyn Device, buffer, range| {
                visit(device, buffer, range).map_err(|error| error.map_or_else(Failure::Saved, failed))
            };
            let site = self.sites.of(index);
            if let Some(shape) = model.layers[index].mixer.as_ref().and_then(|mixer| mixer.part.cache()) {
                let cache = site.cache(index).map_err(failed)?;
                let [k, v] = rows(&shape, &layout.params).map_err(failed)?;
                for (buffer, row) in [Some((cache.k, k)), cache.v.map(|buffer| (buffer, v))].into_iter().flatten() {
                    for range in runs(shape.head_count_kv, bytes.cells, row, bytes.held(computed, written)) {
                        visit(&mut *site.device, buffer, range)?;
                    }
                }
            }
            if bytes.state == 0 {
                continue;
            }
            let (buffer, values) = site.layer(index).and_then(|layer| layer.state()).map_err(failed)?;
            for slot in slots {
                let (mut at, end) = (4 * (slot * values) as u64, 4 * ((slot + 1) * values) as u64);
                while at < end {
                    let next = end.min(at + PIECE as u64);
                    visit(&mut *site.device, buffer, at..next)?;
                    at = next;
                }
            }
        }
        Ok(())
    }

    /// Layers may read caches of layers elsewhere: their copies of them follow.
    pub fn refresh_copies(&mut self, computed: usize, written: usize) -> Result<(), Failure> {
        let Loaded { model, layout, .. } = &*self.loaded;
        for (index, bytes) in layout.layers.iter().enumerate() {
            let held = bytes.held(computed, written);
            self.sites.update_copies(index, model, layout, held).map_err(Failure::Device)?;
        }
        Ok(())
    }

    /// After a failure of an accelerator, work can go on, but not this.
    pub fn mend(&mut self, result: Result<(), Failure>) -> Result<(), EngineError> {
        match result {
            Ok(()) => Ok(()),
            Err(Failure::Saved(error)) => Err(error.into()),
            Err(Failure::Device(fault)) => {
                let error = fault.error.clone();
                self.recover(fault)?;
                Err(error.into())
            }
        }
    }
}

/// The checked beginning of what was saved.
struct Header {
    ids: Vec<u32>,
    written: usize,
    /// Positions, ascending; the last is the end.
    states: Vec<usize>,
}

impl Header {
    fn read(input: &mut Summing<&mut dyn Read>, fingerprint: u64, loaded: &Loaded) -> Result<Header, SavedError> {
        if input.array()? != MAGIC {
            return Err(SavedError::NotSaved);
        }
        if u64::from_le_bytes(input.array()?) != fingerprint {
            return Err(SavedError::Foreign);
        }
        let bytes = u64::from_le_bytes(input.array()?);
        let (count, written, states) = (input.u32()?, input.u32()?, input.u32()?);
        let context = loaded.layout.params.context;
        if count.max(written) > context {
            return Err(SavedError::TooLong { tokens: count.max(written), context });
        }
        let recurrent = loaded.layout.is_recurrent();
        if count == 0 || written < count || states as usize >= STATE_SLOTS || recurrent != (states > 0) {
            return Err(SavedError::Damaged("its counts do not fit together"));
        }
        if bytes != loaded.layout.sequence_bytes(count as usize, written as usize, states as usize) {
            return Err(SavedError::Foreign);
        }
        let ids = (0..count).map(|_| input.u32()).collect::<Result<Vec<_>, _>>()?;
        if ids.iter().any(|id| *id as usize >= loaded.model.vocab_size) {
            return Err(SavedError::Damaged("a token is not in the vocabulary"));
        }
        let states = (0..states).map(|_| input.u32().map(|at| at as usize)).collect::<Result<Vec<_>, _>>()?;
        let ascending = states.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || states.first() == Some(&0) || (recurrent && states.last() != Some(&(count as usize))) {
            return Err(SavedError::Damaged("its states do not fit together"));
        }
        Ok(Header { ids, written: written as usize, states })
    }
}

/// Counts everything that goes through into a checksum.
struct Summing<T> {
    inner: T,
    sum: Checksum,
}

impl Summing<&mut dyn Write> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SavedError> {
        self.sum.update(bytes);
        Ok(self.inner.write_all(bytes)?)
    }
}

impl Summing<&mut dyn Read> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), SavedError> {
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => SavedError::Damaged("it ends too early"),
            _ => SavedError::Io(error),
        })?;
        self.sum.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SavedError> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, SavedError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
}
