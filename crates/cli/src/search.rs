//! `headroom search`, `files`

use crate::args::{Files, Search, SearchSort};
use crate::failure::Failure;
use crate::output;
use crate::program::Program;
use app::wire::{HubModel, HubQuery, HubSort, QuantRow};
use serde_json::{Value, json};

pub fn search(program: &Program, options: &Search) -> Result<(), Failure> {
    let app = program.visit(None)?;
    let page = if options.words.is_empty() && options.cursor.is_none() {
        app.hub_recommended()
    } else {
        let sort = match options.sort {
            SearchSort::Downloads => HubSort::Downloads,
            SearchSort::Likes => HubSort::Likes,
            SearchSort::Trending => HubSort::Trending,
            SearchSort::Updated => HubSort::Updated,
        };
        let query = HubQuery { text: options.words.join(" "), sort, cursor: options.cursor.clone(), parameters: false };
        program.wait(app.hub_search(query))?
    };
    if program.json {
        let models: Vec<Value> = page.models.iter().map(model).collect();
        return output::json(&json!({ "models": models, "next": page.next }));
    }
    if page.models.is_empty() {
        output::note("nothing was found");
    }
    for model in &page.models {
        let downloads = model.downloads.map_or(String::new(), |count| format!("{count} downloads"));
        let gated = if model.gated { "asks to accept terms" } else { "" };
        let note = model.note.as_deref().unwrap_or("").replace('_', " ");
        let line = format!("{:52} {downloads:>20}  {gated}{note}", model.repo);
        output::line(line.trim_end())?;
    }
    if let Some(next) = &page.next {
        output::note(format!("more with --cursor {next}"));
    }
    Ok(())
}

fn model(model: &HubModel) -> Value {
    json!({
        "repo": model.repo,
        "downloads": model.downloads,
        "likes": model.likes,
        "updated": model.updated,
        "gated": model.gated,
        "note": model.note,
    })
}

pub fn files(program: &Program, options: &Files) -> Result<(), Failure> {
    let app = program.visit(None)?;
    let page = program.wait(app.hub_model(options.repo.clone()))?;
    if program.json {
        let quants: Vec<Value> = page.quants.iter().map(quant).collect();
        return output::json(&json!({
            "repo": page.repo,
            "commit": page.commit,
            "gated": page.gated,
            "quants": quants,
        }));
    }
    if page.quants.is_empty() {
        output::note(format!("{} has no GGUF models", page.repo));
    }
    for row in &page.quants {
        let mut notes = Vec::new();
        if let Some(why) = &row.recommended {
            notes.push(format!("recommended here: {}", reason(why)));
        }
        if row.installed.is_some() {
            notes.push("installed".into());
        }
        let line = format!("{:16} {:>10}  {}", row.quant, output::size(row.bytes), notes.join(", "));
        output::line(line.trim_end())?;
    }
    Ok(())
}

/// The recommendation's code in words.
pub fn reason(code: &str) -> &str {
    match code {
        "fitsGpu" => "the best that fits into video memory",
        "fitsRam" => "a good one that fits into RAM",
        "smallest" => "larger ones do not fit into RAM",
        other => other,
    }
}

fn quant(row: &QuantRow) -> Value {
    json!({
        "quant": row.quant,
        "files": row.files,
        "bytes": row.bytes,
        "recommended": row.recommended.is_some(),
        "installed": row.installed,
    })
}
