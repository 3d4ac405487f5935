//! What the system says about folders, the Hub's address and the token, for every program alike. Pure: the programs look
//! the variables up.

use std::path::PathBuf;

/// The name of the data folder; Tauri calls it the app's identifier.
const IDENTIFIER: &str = "dev.headroom.desktop";

/// What a program finds around itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Settings, chats, models; `None` where the system names no home folder.
    pub data_dir: Option<PathBuf>,
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
        // As the Hugging Face libraries find it.
        let hf_cache_dir = folder("HF_HUB_CACHE")
            .or_else(|| Some(folder("HF_HOME")?.join("hub")))
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .or_else(|| in_home(".cache/huggingface/hub"));
        Environment {
            data_dir: data.map(|folder| folder.join(IDENTIFIER)),
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN"),
            hf_cache_dir,
        }
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
    fn blank_variables_count_as_none() {
        let found = with(&[("HF_ENDPOINT", " "), ("HF_TOKEN", "hf_x")]);
        assert_eq!((found.endpoint, found.token.as_deref()), (None, Some("hf_x")));
        assert_eq!(Environment::new(|_| None, None), Environment::default());
    }
}
