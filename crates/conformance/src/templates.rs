//! `templates/`: every rendered conversation, exactly.

use crate::report::Report;
use anyhow::{Context, Result};
use std::path::Path;

pub fn check(directory: &Path, report: &mut Report) -> Result<()> {
    let folder = directory.join("templates");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let expected = folder.join(format!("{name}.expected.json"));
        let expected = std::fs::read_to_string(&expected).with_context(|| expected.display().to_string())?;
        let label = format!("template {name}");
        match chat_template::conformance::check(&std::fs::read_to_string(&path)?, &expected) {
            Ok(outcome) => {
                for failure in &outcome.failures {
                    report.holds(&label, failure, false);
                }
                report.holds(&label, &format!("{} prompts exact", outcome.compared), outcome.failures.is_empty());
            }
            Err(error) => report.holds(&label, &error, false),
        }
    }
    Ok(())
}
