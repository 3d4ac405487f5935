//! A file that the program was asked to open: named when it was started, or when it was started again.

use crate::app::{App, blocking, lock};
use crate::error::Result;
use crate::library::{first_part, id_of};
use crate::wire::{AppEvent, ErrorCode, OpenedFile, WireError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a path, and of a name in it: no file system of ours has longer ones. Names have up to 255 characters of three bytes.
const MAX_PATH: usize = 3 * 32_767;
const MAX_NAME: usize = 3 * 255;

impl App {
    /// Asks for a file to be opened. The window hears of it, or finds it when it starts; of several the last one counts.
    pub fn open_file(&self, path: PathBuf) {
        *lock(&self.asked_file) = Some(path);
        self.emit(AppEvent::FileAsked);
    }

    /// The model of the file that was asked for, once. From now on the library shows it, where it lies.
    ///
    /// # Errors
    /// The file is not there, cannot be read or is no model that runs here; the library is as it was then.
    pub async fn opened_file(self: &Arc<Self>) -> Result<Option<OpenedFile>> {
        let Some(path) = lock(&self.asked_file).take() else { return Ok(None) };
        check(&path)?;
        let path = first_part(path);
        let (app, file) = (self.clone(), path.clone());
        let known = blocking(move || {
            app.library.describe(&file).map_err(|error| about(error, &file))?;
            Ok(app.library.at(&app.folders(), &file))
        });
        if let Some(model_id) = known.await? {
            return Ok(Some(OpenedFile { model_id, added: false }));
        }
        self.library_add(path.clone()).await?;
        Ok(Some(OpenedFile { model_id: id_of(&path), added: true }))
    }
}

/// Arguments may come from any program.
fn check(path: &Path) -> Result<()> {
    let long = |part: std::path::Component<'_>| part.as_os_str().len() > MAX_NAME;
    if path.as_os_str().len() > MAX_PATH || path.components().any(long) {
        return Err(WireError::new(ErrorCode::FileName, "the path is longer than any of a file"));
    }
    if path.to_str().is_none() || !path.is_absolute() {
        return Err(unusable(path));
    }
    Ok(())
}

/// What cannot be kept in the settings, which are text.
pub(crate) fn unusable(path: &Path) -> WireError {
    WireError::new(ErrorCode::FileName, "the path is not a full one in Unicode").about(path.display().to_string())
}

/// A header that breaks its own rules does not say whose it is.
fn about(error: WireError, path: &Path) -> WireError {
    match error.code {
        ErrorCode::FileInvalid if error.subject.is_none() => error.about(path.display().to_string()),
        _ => error,
    }
}
