//! Rows of one type to rows of another, on several threads.

use crate::QuantizeError;
use quant::GgmlType;
use std::sync::Mutex;
use std::thread;

/// Values that a thread converts between two looks at whether to stop.
const CHUNK: usize = 1 << 16;
/// Chunks of a piece for each thread: enough that none waits long for the last one.
const CHUNKS_PER_THREAD: usize = 8;
/// The largest number of F16.
const HALF_MAX: f32 = 65504.0;

/// A tensor to convert.
pub(crate) struct Conversion<'a> {
    pub name: &'a str,
    pub from: GgmlType,
    pub to: GgmlType,
    pub columns: usize,
    /// Rows that share a piece of the importance.
    pub rows_per_matrix: usize,
    /// A value for each column, matrix after matrix.
    pub importance: Option<&'a [f32]>,
}

impl Conversion<'_> {
    /// Rows that are good to convert at once.
    pub fn piece_rows(&self, threads: usize) -> usize {
        self.chunk_rows() * CHUNKS_PER_THREAD * threads
    }

    fn chunk_rows(&self) -> usize {
        (CHUNK / self.columns).max(1)
    }

    /// Converts rows `first..`, packed in `source`, into `out`.
    pub fn run(
        &self,
        first: usize,
        source: &[u8],
        out: &mut [u8],
        threads: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), QuantizeError> {
        let (source_row, out_row) = (self.row_bytes(self.from)?, self.row_bytes(self.to)?);
        let rows = self.chunk_rows();
        let chunks = source.chunks(rows * source_row).zip(out.chunks_mut(rows * out_row)).enumerate();
        let threads = threads.min(chunks.len());
        let chunks = Mutex::new(chunks);
        let work = || {
            let mut values = vec![0f32; self.columns];
            // A panic elsewhere leaves the iterator whole, and ends this one's work soon.
            while let Some((index, (source, out))) = chunks.lock().unwrap_or_else(|p| p.into_inner()).next() {
                if cancelled() {
                    return Err(QuantizeError::Cancelled);
                }
                let rows = source.chunks_exact(source_row).zip(out.chunks_exact_mut(out_row));
                for (row, (source, out)) in (first + index * self.chunk_rows()..).zip(rows) {
                    self.row(row, source, &mut values, out)?;
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |result, other| {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.and(other)
            })
        })
    }

    fn row(&self, row: usize, source: &[u8], values: &mut [f32], out: &mut [u8]) -> Result<(), QuantizeError> {
        quant::dequantize_row(self.from, source, values).map_err(|error| self.error(error))?;
        let limit = if self.to == GgmlType::F16 { HALF_MAX } else { f32::MAX };
        // A number that is not one fails this too.
        if let Some(&value) = values.iter().find(|value| !(value.abs() <= limit)) {
            return Err(QuantizeError::OutOfRange { tensor: self.name.into(), value, ty: self.to });
        }
        let start = row / self.rows_per_matrix * self.columns;
        let importance = self.importance.and_then(|importance| importance.get(start..start + self.columns));
        quant::quantize_row(self.to, values, importance, out).map_err(|error| self.error(error))
    }

    fn row_bytes(&self, ty: GgmlType) -> Result<usize, QuantizeError> {
        let elements = self.columns;
        ty.row_bytes(elements).ok_or_else(|| self.error(quant::QuantError::PartialBlock { ty, elements }))
    }

    fn error(&self, source: quant::QuantError) -> QuantizeError {
        QuantizeError::Convert { tensor: self.name.into(), source }
    }
}
