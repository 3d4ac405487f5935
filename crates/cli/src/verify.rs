//! `headroom verify`

use crate::args::Verify;
use crate::failure::Failure;
use crate::output;
use crate::program::Program;
use app::App;
use app::wire::{AppEvent, FileProgress, Verified, VerifiedFile};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub fn verify(program: &Program, options: &Verify) -> Result<(), Failure> {
    let (sender, events) = unbounded_channel();
    let app = program.own(Arc::new(move |event| {
        if let AppEvent::Verify { progress: Some(progress), .. } = event {
            // Nobody listens any more when the program ends.
            let _ = sender.send(progress);
        }
    }))?;
    let model = program.wait(app.library_named(options.model.clone()))?;
    let Verified { files, .. } = program.block_on(watched(&app, model.id.clone(), events))?;
    if program.json {
        output::json(&json!({
            "id": model.id,
            "name": model.name,
            "files": files.iter().map(file).collect::<Vec<_>>(),
        }))?;
    } else {
        files.iter().try_for_each(|file| output::line(&format!("{}: {}", name(file), words(file))))?;
    }
    match files.iter().find_map(|file| file.problem.clone()) {
        Some(problem) => Err(problem.into()),
        None => Ok(()),
    }
}

/// Ctrl-C calls it off.
async fn watched(app: &Arc<App>, id: String, mut events: UnboundedReceiver<FileProgress>) -> Result<Verified, Failure> {
    let bar = output::byte_bar(0);
    let work = app.library_verify(id);
    tokio::pin!(work);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut interrupted = false;
    let verified = loop {
        tokio::select! {
            verified = &mut work => break verified,
            Some(progress) = events.recv() => show(&bar, progress),
            _ = &mut interrupt, if !interrupted => {
                interrupted = true;
                app.library_verify_cancel();
            }
        }
    };
    bar.finish_and_clear();
    Ok(verified?)
}

fn show(bar: &ProgressBar, progress: FileProgress) {
    bar.set_length(progress.total);
    bar.set_position(progress.bytes);
    let left = progress.seconds_left.map(|seconds| format!("{} left", output::duration(seconds)));
    bar.set_message(left.unwrap_or_default());
}

fn name(file: &VerifiedFile) -> String {
    let path = Path::new(&file.path);
    path.file_name().map_or_else(|| file.path.clone(), |name| name.to_string_lossy().into_owned())
}

fn words(file: &VerifiedFile) -> String {
    match &file.problem {
        Some(problem) => problem.message.clone(),
        None if file.compared => "as the Hub has it".into(),
        None => {
            "its header and length are in order; its SHA-256 on the Hub is not known, to compare its bytes with".into()
        }
    }
}

fn file(file: &VerifiedFile) -> Value {
    json!({
        "path": file.path,
        "compared": file.compared,
        "problem": file.problem.as_ref().map(|problem| problem.message.clone()),
    })
}
