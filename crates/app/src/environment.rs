//! What the system says about folders, the Hub's address and the token, for every program alike. Pure: the programs look
//! the variables up.

use std::path::{Path, PathBuf};

/// The name of the data folder; Tauri calls it the app's identifier.
const IDENTIFIER: &str = "dev.headroom.desktop";
const MODELS: &str = "models";

/// What a program finds around itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Settings, chats and, where nothing else is said, models; `None` where the system names no home folder.
    pub data_dir: Option<PathBuf>,
    /// For what is too large to go from PC to PC with the user's account, as the data folder may on Windows.
    pub local_dir: Option<PathBuf>,
    pub endpoint: Option<String>,
    pub token: Option<String>,
    pub hf_cache_dir: Option<PathBuf>,
}

impl Environment {
    /// `variable` looks one up; `home` is the user's home folder.
    pub fn new(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Environment {
        let text = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let folder = |name: &str| text(name).map(PathBuf::from);
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
        // As Tauri finds it. A relative XDG folder counts as none, says the XDG specification.
        let data = if cfg!(windows) {
            folder("APPDATA").or_else(|| in_home("AppData\\Roaming"))
        } else if cfg!(target_os = "macos") {
            in_home("Library/Application Support")
        } else {
            folder("XDG_DATA_HOME").filter(|folder| folder.is_absolute()).or_else(|| in_home(".local/share"))
        };
        let local = if cfg!(windows) { folder("LOCALAPPDATA").or_else(|| in_home("AppData\\Local")) } else { None };
        // As the Hugging Face libraries find it.
        let hf_cache_dir = folder("HF_HUB_CACHE")
            .or_else(|| Some(folder("HF_HOME")?.join("hub")))
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .or_else(|| in_home(".cache/huggingface/hub"));
        Environment {
            data_dir: data.map(|folder| folder.join(IDENTIFIER)),
            local_dir: local.map(|folder| folder.join(IDENTIFIER)),
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN"),
            hf_cache_dir,
        }
    }

    /// The folder for what must not go from PC to PC: the local one, if there is one, or else that of the data, which has
    /// everything also where somebody names it.
    pub fn local_to(&self, data_dir: &Path) -> PathBuf {
        let usual = self.data_dir.as_deref() == Some(data_dir);
        self.local_dir.as_deref().filter(|_| usual).unwrap_or(data_dir).to_owned()
    }

    /// The folder of downloaded models while the settings name none: the local one, or that of the data, if they are there
    /// already.
    pub fn models_dir(&self, data_dir: &Path) -> PathBuf {
        let with_data = data_dir.join(MODELS);
        if with_data.is_dir() { with_data } else { self.local_to(data_dir).join(MODELS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Environment {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Environment::new(find, Some("/home/me".into()))
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn folders_are_where_tauri_and_the_hub_libraries_put_them() {
        let data = |variables| with(variables).data_dir.unwrap();
        assert_eq!(data(&[]), PathBuf::from("/home/me/.local/share/dev.headroom.desktop"));
        assert_eq!(data(&[("XDG_DATA_HOME", "/data")]), PathBuf::from("/data/dev.headroom.desktop"));
        assert_eq!(data(&[("XDG_DATA_HOME", "data")]), data(&[]));
        let cache = |variables| with(variables).hf_cache_dir.unwrap();
        assert_eq!(cache(&[]), PathBuf::from("/home/me/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/c")]), PathBuf::from("/c/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/c")]), PathBuf::from("/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")]), PathBuf::from("/hub"));
    }

    #[test]
    #[cfg(windows)]
    fn models_are_local_and_data_may_roam() {
        let found = with(&[("APPDATA", "C:\\r"), ("LOCALAPPDATA", "C:\\l")]);
        let data = found.data_dir.clone().unwrap();
        assert_eq!(data, PathBuf::from("C:\\r\\dev.headroom.desktop"));
        assert_eq!(found.local_to(&data), PathBuf::from("C:\\l\\dev.headroom.desktop"));
        assert_eq!(found.models_dir(&data), PathBuf::from("C:\\l\\dev.headroom.desktop\\models"));
    }

    #[test]
    fn models_stay_where_they_are_and_go_where_they_may() {
        let place = tempfile::tempdir().unwrap();
        let (data, local) = (place.path().join("data"), place.path().join("local"));
        let found =
            Environment { data_dir: Some(data.clone()), local_dir: Some(local.clone()), ..Environment::default() };
        assert_eq!(found.models_dir(&data), local.join("models"));
        let other = place.path().join("other");
        assert_eq!(found.models_dir(&other), other.join("models"), "a data folder that somebody names has everything");
        assert_eq!((found.local_to(&data), found.local_to(&other)), (local, other));
        std::fs::create_dir_all(data.join("models")).unwrap();
        assert_eq!(found.models_dir(&data), data.join("models"));
        assert_ne!(found.local_to(&data), data, "only models stay");
        std::fs::remove_dir_all(&data).unwrap();
        let nowhere = Environment { local_dir: None, ..found };
        assert_eq!(nowhere.models_dir(&data), data.join("models"));
    }

    #[test]
    fn blank_variables_count_as_none() {
        let found = with(&[("HF_ENDPOINT", " "), ("HF_TOKEN", "hf_x")]);
        assert_eq!((found.endpoint, found.token.as_deref()), (None, Some("hf_x")));
        assert_eq!(Environment::new(|_| None, None), Environment::default());
    }
}
