//! Measuring importance: a device that computes on another one and keeps the squares of what matrices are given.

use crate::QuantizeError;
use crate::draft;
use crate::imatrix::{COUNTS, KIND, SUMS};
use backend::{BackendError, BufferId, Device, DeviceKind, HostBytes, MemoryUse, Need, Op, View};
use gguf::{GgufError, GgufWriter, Strings};
use quant::GgmlType;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the inputs of a stack of matrices add up to.
#[derive(Clone, Debug, PartialEq)]
struct Sums {
    /// Squares, for each column of each matrix.
    squares: Vec<f32>,
    /// Inputs of each matrix.
    counts: Vec<f32>,
}

impl Sums {
    fn new(columns: usize, matrices: usize) -> Sums {
        Sums { squares: vec![0.0; columns * matrices], counts: vec![0.0; matrices] }
    }

    fn add(&mut self, matrix: usize, input: &[f32]) {
        // An id that is out of range fails in the operation itself.
        let Some(count) = self.counts.get_mut(matrix) else { return };
        *count += 1.0;
        let squares = &mut self.squares[matrix * input.len()..][..input.len()];
        squares.iter_mut().zip(input).for_each(|(sum, x)| *sum += x * x);
    }
}

/// By the address of the matrices in host memory: the device knows no names.
type Matrices = HashMap<usize, Sums>;

/// What was measured so far; shared with the [`Recorder`].
#[derive(Clone, Debug, Default)]
pub struct Measured(Arc<Mutex<Matrices>>);

/// Where a measurement comes from.
#[derive(Clone, Copy, Debug)]
pub struct Measurement<'a> {
    /// The text.
    pub dataset: &'a str,
    /// Pieces of the text, and tokens of each.
    pub chunks: u32,
    pub chunk_tokens: u32,
}

impl Measured {
    fn lock(&self) -> MutexGuard<'_, Matrices> {
        // Sums are added to in place: a panic elsewhere leaves numbers.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Writes an importance matrix. `name`: the tensor that begins at an address; what has none is left out.
    ///
    /// # Errors
    /// The file cannot be written; the model gave numbers that are none.
    pub fn save(
        &self,
        path: &Path,
        about: Measurement<'_>,
        name: &dyn Fn(usize) -> Option<String>,
    ) -> Result<usize, QuantizeError> {
        let matrices = self.lock();
        let named: BTreeMap<String, &Sums> =
            matrices.iter().filter_map(|(address, sums)| Some((name(*address)?, sums))).collect();
        for (tensor, sums) in &named {
            if let Some(&value) = sums.squares.iter().find(|value| !value.is_finite()) {
                return Err(QuantizeError::OutOfRange { tensor: tensor.clone(), value, ty: GgmlType::F32 });
            }
        }
        let writer = header(&named, about).map_err(QuantizeError::Header)?;
        let mut out = draft::start(&writer, path)?;
        for sums in named.values() {
            for values in [&sums.squares, &sums.counts] {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                out.write(&bytes).map_err(|error| QuantizeError::writer(path, error))?;
            }
        }
        draft::finish(out, path)?;
        Ok(named.len())
    }
}

fn header(named: &BTreeMap<String, &Sums>, about: Measurement<'_>) -> Result<GgufWriter, GgufError> {
    let mut writer = GgufWriter::new();
    writer.set("general.type", KIND)?;
    writer.set("imatrix.datasets", [about.dataset].into_iter().collect::<Strings>())?;
    writer.set("imatrix.chunk_count", about.chunks)?;
    writer.set("imatrix.chunk_size", about.chunk_tokens)?;
    for (name, sums) in named {
        let matrices = sums.counts.len() as u64;
        let columns = sums.squares.len() as u64 / matrices;
        writer.tensor(&format!("{name}{SUMS}"), GgmlType::F32, &[columns, matrices])?;
        writer.tensor(&format!("{name}{COUNTS}"), GgmlType::F32, &[1, matrices])?;
    }
    Ok(writer)
}

/// A host device whose matrix products are looked at. Everything is computed as without it.
pub struct Recorder {
    device: Box<dyn Device>,
    /// Where adopted bytes lie.
    addresses: HashMap<BufferId, usize>,
    measured: Measured,
}

impl Recorder {
    pub fn new(device: Box<dyn Device>) -> (Recorder, Measured) {
        let measured = Measured::default();
        (Recorder { device, addresses: HashMap::new(), measured: measured.clone() }, measured)
    }

    fn floats(&mut self, view: View, count: usize) -> Result<Vec<f32>, BackendError> {
        Ok(self.words(view, count)?.into_iter().map(f32::from_le_bytes).collect())
    }

    fn words(&mut self, view: View, count: usize) -> Result<Vec<[u8; 4]>, BackendError> {
        let mut words = vec![[0u8; 4]; count];
        self.device.read(view.buffer, view.offset, words.as_flattened_mut())?;
        Ok(words)
    }

    /// Adds each row of `input`, for the matrix that `choose` gives for its number.
    fn add(&self, weight: BufferId, matrices: usize, input: &[f32], columns: usize, choose: impl Fn(usize) -> usize) {
        let Some(address) = self.addresses.get(&weight) else { return };
        let mut measured = self.measured.lock();
        let sums = measured.entry(*address).or_insert_with(|| Sums::new(columns, matrices));
        input.chunks_exact(columns).enumerate().for_each(|(row, input)| sums.add(choose(row), input));
    }

    fn look(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        match *op {
            Op::MatMul { input, n, products } => {
                let Some(columns) = products.first().map(|product| product.weight.cols) else { return Ok(()) };
                let input = self.floats(input, n * columns)?;
                for product in products {
                    self.add(product.weight.buffer, 1, &input, columns, |_| 0);
                }
            }
            Op::ExpertMatMul { input, input_per_slot, n, ids, used, experts, weight, .. } => {
                let ids: Vec<usize> =
                    self.words(ids, n * used)?.into_iter().map(|id| u32::from_le_bytes(id) as usize).collect();
                let columns = weight.cols;
                let rows = if input_per_slot { n * used } else { n };
                let mut input = self.floats(input, rows * columns)?;
                if !input_per_slot {
                    input = input.chunks_exact(columns).flat_map(|row| row.repeat(used)).collect();
                }
                self.add(weight.buffer, experts, &input, columns, |row| ids[row]);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Device for Recorder {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn kind(&self) -> DeviceKind {
        self.device.kind()
    }

    fn memory(&self) -> MemoryUse {
        self.device.memory()
    }

    fn scratch(&self, need: &Need) -> Option<u64> {
        self.device.scratch(need)
    }

    fn pressure(&mut self) -> u64 {
        self.device.pressure()
    }

    fn adopt(&mut self, bytes: HostBytes) -> Result<BufferId, BackendError> {
        let address = (*bytes).as_ref().as_ptr() as usize;
        let buffer = self.device.adopt(bytes)?;
        self.addresses.insert(buffer, address);
        Ok(buffer)
    }

    fn allocate(&mut self, bytes: u64) -> Result<BufferId, BackendError> {
        self.device.allocate(bytes)
    }

    fn free(&mut self, buffer: BufferId) {
        self.addresses.remove(&buffer);
        self.device.free(buffer);
    }

    fn write(&mut self, buffer: BufferId, offset: u64, bytes: &[u8]) -> Result<(), BackendError> {
        self.device.write(buffer, offset, bytes)
    }

    fn read(&mut self, buffer: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.device.read(buffer, offset, bytes)
    }

    fn run(&mut self, op: &Op<'_>) -> Result<(), BackendError> {
        self.look(op)?;
        self.device.run(op)
    }
}
