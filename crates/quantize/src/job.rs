//! A model on its way from one file to another.

use crate::convert::Conversion;
use crate::draft::{self, Out};
use crate::{Imatrix, Mix, Plan, QuantizeError, Step, imatrix};
use gguf::TensorInfo;
use std::path::Path;
use weights::{Access, ModelFile, Pattern, WeightBytes};

/// Bytes copied at once where nothing changes.
const COPY: usize = 8 << 20;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The tensor at work.
    pub tensor: &'a str,
    /// Bytes of the input that are done, of `total`.
    pub done: u64,
    pub total: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the file.
    pub bytes: u64,
    /// Tensors of another type than before.
    pub changed: usize,
}

/// A model that is open and whose quantization is planned; nothing is written yet.
pub struct Job<'a> {
    file: ModelFile,
    plan: Plan,
    imatrix: Option<&'a Imatrix>,
}

impl<'a> Job<'a> {
    /// Opens `input`, a model or any part of a split one.
    ///
    /// # Errors
    /// The file cannot be used, or [`Plan::new`] fails.
    pub fn open(input: &Path, mix: Mix, imatrix: Option<&'a Imatrix>) -> Result<Job<'a>, QuantizeError> {
        let file = ModelFile::open(input, Access::Map)?;
        let plan = Plan::new(file.gguf(), mix, imatrix)?;
        Ok(Job { file, plan, imatrix })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of the input, all parts together.
    pub fn input_bytes(&self) -> u64 {
        self.file.gguf().file_len
    }

    /// Writes the output: all of it, or nothing. `cancelled` is asked many times a second, from several threads.
    ///
    /// # Errors
    /// No room, the output cannot be written, a tensor of numbers that are none, the input was changed, cancelled.
    pub fn run(
        &self,
        output: &Path,
        threads: usize,
        progress: &mut dyn FnMut(Progress<'_>),
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Report, QuantizeError> {
        self.check_output(output)?;
        let mut out = draft::start(&self.plan.writer, output)?;
        let mut run = Run { job: self, output, threads: threads.max(1), progress, cancelled, done: 0 };
        self.file.advise(Pattern::Sequential);
        for (index, step) in self.plan.steps.iter().enumerate() {
            run.tensor(index, *step, &mut out)?;
        }
        // Pages that could not be read count as zeros: a file made of them must not come to be.
        self.file.check()?;
        draft::finish(out, output)?;
        let changed = self.plan.steps.iter().filter(|step| step.changes()).count();
        Ok(Report { bytes: self.plan.bytes, changed })
    }

    /// The output may replace a file, but not the one that is being read.
    fn check_output(&self, output: &Path) -> Result<(), QuantizeError> {
        let Ok(real) = output.canonicalize() else { return Ok(()) };
        match self.file.paths().any(|path| path.canonicalize().is_ok_and(|path| path == real)) {
            true => Err(QuantizeError::SameFile { path: output.into() }),
            false => Ok(()),
        }
    }
}

/// What every tensor needs while the job runs.
struct Run<'a> {
    job: &'a Job<'a>,
    output: &'a Path,
    threads: usize,
    progress: &'a mut dyn FnMut(Progress<'_>),
    cancelled: &'a (dyn Fn() -> bool + Sync),
    done: u64,
}

impl Run<'_> {
    fn tensor(&mut self, index: usize, step: Step, out: &mut Out) -> Result<(), QuantizeError> {
        let job = self.job;
        let tensor = &job.file.gguf().tensors[index];
        let bytes = job.file.tensor_bytes(index)?;
        if step.changes() { self.convert(tensor, step, &bytes, out) } else { self.copy(tensor, &bytes, out) }
    }

    fn copy(&mut self, tensor: &TensorInfo, bytes: &WeightBytes, out: &mut Out) -> Result<(), QuantizeError> {
        for start in (0..bytes.len()).step_by(COPY) {
            let end = bytes.len().min(start + COPY);
            self.piece(tensor, bytes, start..end, out, |source, _| Ok(source.to_vec()))?;
        }
        Ok(())
    }

    fn convert(
        &mut self,
        tensor: &TensorInfo,
        step: Step,
        bytes: &WeightBytes,
        out: &mut Out,
    ) -> Result<(), QuantizeError> {
        // A mapped tensor's sizes fit usize.
        let (columns, rows) = (tensor.shape[0] as usize, tensor.rows() as usize);
        let conversion = Conversion {
            name: &tensor.name,
            from: step.from,
            to: step.to,
            columns,
            rows_per_matrix: rows / imatrix::matrices(tensor) as usize,
            importance: self.job.imatrix.map_or(Ok(None), |imatrix| imatrix.of(tensor))?,
        };
        let (from_row, to_row) = (bytes.len() / rows, step.to.row_bytes(columns).unwrap_or(0));
        let piece = conversion.piece_rows(self.threads);
        for first in (0..rows).step_by(piece) {
            let end = rows.min(first + piece);
            self.piece(tensor, bytes, first * from_row..end * from_row, out, |source, run| {
                let mut packed = vec![0; (end - first) * to_row];
                conversion.run(first, source, &mut packed, run.threads, run.cancelled)?;
                Ok(packed)
            })?;
        }
        Ok(())
    }

    /// Makes and writes the output of a range of the tensor, and lets go of the input's memory.
    fn piece(
        &mut self,
        tensor: &TensorInfo,
        bytes: &WeightBytes,
        range: std::ops::Range<usize>,
        out: &mut Out,
        make: impl FnOnce(&[u8], &Self) -> Result<Vec<u8>, QuantizeError>,
    ) -> Result<(), QuantizeError> {
        if (self.cancelled)() {
            return Err(QuantizeError::Cancelled);
        }
        let made = make(&bytes[range.clone()], self)?;
        out.write(&made).map_err(|error| QuantizeError::writer(self.output, error))?;
        self.done += range.len() as u64;
        if let Some(used) = bytes.slice(range) {
            used.dont_need();
        }
        let total = self.job.file.gguf().tensor_bytes();
        (self.progress)(Progress { tensor: &tensor.name, done: self.done, total });
        Ok(())
    }
}
