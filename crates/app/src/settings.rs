//! `settings.json`: versioned, written atomically, read leniently. The Hub token lies in a file of its own.

use crate::chats::check_text;
use crate::error::Result;
use crate::files::{Kind, set_aside, write_atomically};
use crate::wire::{Sampling, Settings, WireError};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The version that this program writes.
pub const VERSION: u64 = 2;

/// Step `n` makes version `n + 1` of version `n`.
const MIGRATIONS: [fn(&mut Map<String, Value>); VERSION as usize] = [from_unversioned, from_one_gpu];

/// Before there were versions, the KV type `q8_0` was spelled "q80".
fn from_unversioned(settings: &mut Map<String, Value>) {
    let Some(load) = settings.get_mut("load").and_then(Value::as_object_mut) else { return };
    for entry in load.values_mut().filter_map(Value::as_object_mut) {
        for key in ["kvTypeK", "kvTypeV"] {
            if let Some(ty) = entry.get_mut(key).filter(|ty| **ty == "q80") {
                *ty = "q8_0".into();
            }
        }
    }
}

/// In version 1, `gpu` was the id of one GPU, or null for all.
fn from_one_gpu(settings: &mut Map<String, Value>) {
    match settings.remove("gpu") {
        Some(Value::String(id)) => {
            let only = json!({ "type": "only", "gpus": [{ "id": id, "name": "" }] });
            settings.insert("gpus".into(), only);
        }
        None | Some(Value::Null) => {}
        // What could never be used is told of.
        Some(other) => drop(settings.insert("gpus".into(), other)),
    }
}

/// The folder that holds the settings.
pub struct SettingsFile {
    path: PathBuf,
    token_path: PathBuf,
}

impl SettingsFile {
    pub fn new(data_dir: &Path) -> SettingsFile {
        SettingsFile { path: data_dir.join("settings.json"), token_path: data_dir.join("hub-token") }
    }

    /// The settings on disk, or the defaults. A file that cannot be used, or only in part, is kept under another name,
    /// which is given back, too.
    ///
    /// # Errors
    /// The file is there but cannot be read or moved.
    pub fn load(&self) -> Result<(Settings, Option<PathBuf>)> {
        let (settings, whole) = self.read()?;
        let aside = (!whole).then(|| set_aside(&self.path)).transpose()?;
        if let Some(aside) = &aside {
            tracing::warn!("settings could not be read in full; the file is kept as {}", aside.display());
            self.save(&settings)?;
        }
        Ok((Settings { has_hub_token: self.token()?.is_some(), ..settings }, aside))
    }

    /// The settings as far as they can be used; the file stays as it is.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn peek(&self) -> Result<Settings> {
        Ok(Settings { has_hub_token: self.token()?.is_some(), ..self.read()?.0 })
    }

    /// And whether every field could be used.
    fn read(&self) -> Result<(Settings, bool)> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Settings::default(), true)),
            Err(error) => return Err(WireError::file(&self.path, &error)),
        };
        Ok(match serde_json::from_slice::<Value>(&text) {
            Ok(Value::Object(object)) => parse(object),
            _ => (Settings::default(), false),
        })
    }

    pub fn save(&self, settings: &Settings) -> Result<()> {
        let mut object = to_object(settings)?;
        object.remove("hasHubToken");
        object.insert("version".into(), VERSION.into());
        let text = serde_json::to_vec_pretty(&object).map_err(|error| WireError::internal(error.to_string()))?;
        write_atomically(&self.path, &text, Kind::Public)
    }

    /// The stored Hub token; readable by this user only.
    pub fn token(&self) -> Result<Option<String>> {
        match fs::read_to_string(&self.token_path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(WireError::file(&self.token_path, &error)),
        }
    }

    pub fn set_token(&self, token: Option<&str>) -> Result<()> {
        let token = token.map(str::trim).filter(|token| !token.is_empty());
        match token {
            Some(token) if token.len() > 1000 || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                Err(WireError::bad_argument("token", "a token has no spaces and only ASCII characters"))
            }
            Some(token) => write_atomically(&self.token_path, token.as_bytes(), Kind::Private),
            None => match fs::remove_file(&self.token_path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(WireError::file(&self.token_path, &error))
                }
                _ => Ok(()),
            },
        }
    }
}

fn to_object(settings: &Settings) -> Result<Map<String, Value>> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(WireError::internal("settings are no object")),
        Err(error) => Err(WireError::internal(error.to_string())),
    }
}

/// Settings of any version, and whether every field could be used. Each field that cannot keeps its default.
fn parse(mut object: Map<String, Value>) -> (Settings, bool) {
    let version = object.remove("version").map_or(Some(0), |version| version.as_u64());
    let mut whole = version.is_some_and(|version| version <= VERSION);
    for migrate in MIGRATIONS.iter().skip(version.unwrap_or(0).min(VERSION) as usize) {
        migrate(&mut object);
    }
    if let Ok(settings) = serde_json::from_value::<Settings>(object.clone().into())
        && check(&settings).is_ok()
    {
        return (settings, whole);
    }
    let mut good = Map::new();
    for (key, value) in object {
        let mut with = good.clone();
        with.insert(key, value);
        match serde_json::from_value::<Settings>(with.clone().into()) {
            Ok(settings) if check(&settings).is_ok() => good = with,
            _ => whole = false,
        }
    }
    (serde_json::from_value(good.into()).unwrap_or_default(), whole)
}

/// Refuses values that nothing can be done with.
pub fn check(settings: &Settings) -> Result<()> {
    for folder in settings.models_folder.iter().chain(&settings.extra_folders) {
        if !Path::new(folder).is_absolute() {
            return Err(WireError::bad_argument("folder", format!("{folder} is not a full path")));
        }
    }
    if let Some(endpoint) = &settings.hub_endpoint {
        endpoint_url(endpoint)?;
    }
    if settings.threads.is_some_and(|threads| threads == 0 || threads > 1024) {
        return Err(WireError::bad_argument("threads", "threads go from 1 to 1024"));
    }
    if settings.server.port < 1024 {
        return Err(WireError::bad_argument("port", "ports go from 1024 to 65535"));
    }
    check_text(&settings.system_prompt)?;
    check_sampling(&settings.sampling)
}

pub fn endpoint_url(text: &str) -> Result<hub::Url> {
    let url = hub::Url::parse(text.trim());
    url.ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| WireError::bad_argument("hubEndpoint", format!("{text} is not an http(s) address")))
}

/// Ranges as the sampler accepts them.
pub fn check_sampling(sampling: &Sampling) -> Result<()> {
    let Sampling { temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, .. } = *sampling;
    let ranges = [
        ("temperature", temperature, 0.0, 100.0),
        ("topP", top_p, 0.0, 1.0),
        ("minP", min_p, 0.0, 1.0),
        ("repeatPenalty", repeat_penalty, 0.01, 100.0),
        ("presencePenalty", presence_penalty, -100.0, 100.0),
        ("frequencyPenalty", frequency_penalty, -100.0, 100.0),
    ];
    for (name, value, low, high) in ranges {
        if !(value >= low && value <= high) {
            return Err(WireError::bad_argument(name, format!("{name} is {value}; it goes from {low} to {high}")));
        }
    }
    Ok(())
}
