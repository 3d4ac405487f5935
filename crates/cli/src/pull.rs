//! `headroom pull`

use crate::args::Pull;
use crate::failure::Failure;
use crate::program::Program;
use crate::{output, search};
use app::App;
use app::wire::{AppEvent, Download, DownloadState, HubModelPage, WireError};
use indicatif::ProgressBar;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub fn pull(program: &Program, options: &Pull) -> Result<(), Failure> {
    let (repo, quant) = match options.model.split_once(':') {
        Some((repo, quant)) => (repo, Some(quant)),
        None => (options.model.as_str(), None),
    };
    let (sender, events) = unbounded_channel();
    let app = program.own(Arc::new(move |event| {
        if let AppEvent::Download { download } = event {
            // Nobody listens any more when the program ends.
            let _ = sender.send(download);
        }
    }))?;
    let page = program.wait(app.hub_model(repo.to_owned()))?;
    let quant = quant.map_or_else(|| choose(&page), |quant| Ok(quant.to_owned()))?;
    let there = page.quants.iter().find(|row| row.quant.eq_ignore_ascii_case(&quant));
    let there = there.and_then(|row| row.installed.clone());
    let already = there.is_some();
    let id = match there {
        Some(id) => id,
        None => program.block_on(download(&app, &page, quant, events))?,
    };
    let model = program.wait(app.library_named(id))?;
    if let Some(problem) = &model.problem {
        output::note(format!("this model cannot be used: {problem}"));
    }
    if program.json {
        return output::json(&json!({
            "repo": page.repo,
            "commit": page.commit,
            "quant": model.quant,
            "id": model.id,
            "name": model.name,
            "path": model.path,
            "bytes": model.bytes,
            "already": already,
        }));
    }
    let how = if already { "was here already" } else { "is here" };
    output::line(&format!("{} {how} ({}): headroom chat {}", model.name, output::size(model.bytes), model.name))
}

/// The quantization recommended for this PC, or the only one.
fn choose(page: &HubModelPage) -> Result<String, Failure> {
    let recommended = page.quants.iter().find_map(|row| Some((row, row.recommended.as_deref()?)));
    if let Some((row, why)) = recommended {
        let size = output::size(row.bytes);
        output::note(format!("{} ({size}) is recommended for this PC: {}", row.quant, search::reason(why)));
        return Ok(row.quant.clone());
    }
    match page.quants.as_slice() {
        [] => Err(Failure::new("not-found", format!("{} has no GGUF models", page.repo))),
        [only] => Ok(only.quant.clone()),
        several => {
            let names: Vec<&str> = several.iter().map(|row| row.quant.as_str()).collect();
            Err(Failure::usage(format!("say which one, as {}:QUANT, of {}", page.repo, names.join(", "))))
        }
    }
}

/// Returns the model's id in the library. Ctrl-C pauses the download: what has arrived is kept.
async fn download(
    app: &Arc<App>,
    page: &HubModelPage,
    quant: String,
    mut events: UnboundedReceiver<Download>,
) -> Result<String, Failure> {
    let begun = app.download_start(page.repo.clone(), page.commit.clone(), quant).await?;
    let bar = output::byte_bar(begun.total);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    // Why it is being paused.
    let mut stopping: Option<Failure> = None;
    loop {
        let download = tokio::select! {
            download = events.recv() => download.ok_or_else(|| Failure::new("internal", "the download is gone"))?,
            _ = &mut interrupt, if stopping.is_none() => {
                let text = "stopped; what has arrived is kept: pull again to go on";
                stopping = Some(Failure::new("cancelled", text));
                app.download_pause(begun.id.clone()).await?;
                continue;
            }
        };
        if download.id != begun.id {
            continue;
        }
        show(&bar, &download);
        match download.state {
            DownloadState::Done => {
                bar.finish_and_clear();
                return download.model_id.ok_or_else(|| Failure::new("internal", "the download has no model"));
            }
            DownloadState::Failed => return Err(failure(download.error)),
            DownloadState::Paused | DownloadState::Cancelled => {
                bar.abandon();
                return Err(stopping.unwrap_or_else(|| Failure::new("cancelled", "the download was stopped")));
            }
            // The hub crate has tried for minutes. A window waits on; a terminal is told.
            DownloadState::Waiting if download.error.is_some() && stopping.is_none() => {
                stopping = Some(failure(download.error));
                app.download_pause(begun.id.clone()).await?;
            }
            _ => {}
        }
    }
}

fn failure(error: Option<WireError>) -> Failure {
    error.map_or_else(|| Failure::new("internal", "the download failed"), Failure::from)
}

fn show(bar: &ProgressBar, download: &Download) {
    bar.set_length(download.total);
    bar.set_position(download.bytes);
    bar.set_message(match download.state {
        DownloadState::Queued => "starting".into(),
        DownloadState::Waiting => "waiting for the connection".into(),
        DownloadState::Verifying => "verifying".into(),
        DownloadState::Running => {
            let left =
                download.seconds_left.map_or(String::new(), |seconds| format!(", {} left", output::duration(seconds)));
            format!("{}/s{left}", output::size(download.bytes_per_second as u64))
        }
        _ => String::new(),
    });
}
