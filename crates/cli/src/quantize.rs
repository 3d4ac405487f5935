//! `headroom quantize`

use crate::args::Quantize;
use crate::failure::Failure;
use crate::program::Program;
use crate::{load, output};
use engine::Cancel;
use quantize::{Imatrix, Job, Plan, Progress, QuantizeError};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub fn quantize(program: &Program, options: &Quantize) -> Result<(), Failure> {
    let started = Instant::now();
    let input = load::find(program, &options.input)?;
    let imatrix = options.imatrix.as_deref().map(Imatrix::open).transpose()?;
    let job = Job::open(&input, options.mix, imatrix.as_ref())?;
    warn(job.plan());
    let cancel = Cancel::new();
    program.interrupts_only_cancel(&cancel);
    let threads = options.threads.map_or_else(load::cores, |threads| threads as usize);
    let mut bar = Bar { started, shown: None };
    let result = job.run(&options.output, threads, &mut |progress| bar.show(progress), &|| cancel.is_cancelled());
    bar.clear();
    let report = result?;
    let (seconds, bytes) = (started.elapsed().as_secs_f64(), report.bytes);
    if program.json {
        return output::json(&json!({
            "path": options.output,
            "type": options.mix.name(),
            "bytes": bytes,
            "input_bytes": job.input_bytes(),
            "changed": report.changed,
            "requantized": requantized(job.plan()),
            "types": types(job.plan()),
            "seconds": seconds,
        }));
    }
    output::line(&format!(
        "{}: {}, {} from {}, in {}",
        options.output.display(),
        options.mix.name(),
        output::size(bytes),
        output::size(job.input_bytes()),
        output::duration(seconds.ceil() as u64)
    ))
}

fn requantized(plan: &Plan) -> usize {
    plan.steps.iter().filter(|step| step.requantizes()).count()
}

/// Tensors of each type.
fn types(plan: &Plan) -> BTreeMap<&'static str, usize> {
    let mut types = BTreeMap::new();
    for step in &plan.steps {
        *types.entry(step.to.name()).or_default() += 1;
    }
    types
}

fn warn(plan: &Plan) {
    match requantized(plan) {
        0 => {}
        count => output::note(format!(
            "{count} tensors are quantized already: rounding them again costs quality; better take the F16 or BF16 model"
        )),
    }
}

/// One line at the terminal, a few times a second.
struct Bar {
    started: Instant,
    shown: Option<Instant>,
}

impl Bar {
    fn show(&mut self, progress: Progress<'_>) {
        if self.shown.is_some_and(|shown| shown.elapsed() < Duration::from_millis(200)) {
            return;
        }
        self.shown = Some(Instant::now());
        let share = progress.done as f64 / progress.total.max(1) as f64;
        let left = self.started.elapsed().as_secs_f64() * (1.0 - share) / share.max(1e-9);
        let left = output::duration(left.ceil() as u64);
        output::progress(format!("{:.0} %, {left} left, {}", share * 100.0, progress.tensor));
    }

    fn clear(&self) {
        if self.shown.is_some() {
            output::progress("");
        }
    }
}

impl From<QuantizeError> for Failure {
    fn from(error: QuantizeError) -> Failure {
        use QuantizeError as Q;
        let code = match error {
            Q::Input(source) => return source.into(),
            Q::Output { path, source } => return Failure::io(&path, source),
            Q::SameFile { .. } => return Failure::usage(error),
            Q::NotAModel | Q::RowTooLong { .. } | Q::OutOfRange { .. } | Q::BadImportance { .. } => "file-invalid",
            Q::ImportanceNeeded { .. } | Q::ImportanceLength { .. } => "importance",
            Q::Busy { .. } => "busy",
            Q::DiskFull { .. } => "disk-full",
            Q::Cancelled => "cancelled",
            _ => "internal",
        };
        Failure::new(code, error)
    }
}
