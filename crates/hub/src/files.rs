//! The files of a repository and the GGUF models among them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::search::next_cursor;
use crate::{Hub, HubError, check_repo, check_revision, safe_path};

/// Entries of a tree that are read at most: 50 pages of 1,000.
const MAX_PAGES: usize = 50;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoFile {
    /// Path in the repository, with `/`; checked by [`safe_path`].
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// 64 lower-case hexadecimal digits; only for files in LFS, as all models are.
    pub sha256: Option<String>,
}

/// One model that can be chosen: a file, or all parts of a split file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GgufChoice {
    /// The file's name without folder, part number and `.gguf`.
    pub name: String,
    /// As the name says it: "Q4_K_M", "UD-Q4_K_XL", "F16"; the whole `name` if it says nothing or another model of the
    /// repository says the same, and the path where that is the same, too. No two models have the same one.
    pub quant: String,
    /// In the order of the parts; the first is the one to load.
    pub files: Vec<RepoFile>,
    pub total_bytes: u64,
    /// A vision or audio projector: no model by itself.
    pub is_mmproj: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoFiles {
    pub repo: String,
    /// The commit that all sizes and hashes belong to, 40 hexadecimal digits.
    pub commit: String,
    /// Asks to accept terms before a download.
    pub gated: bool,
    pub files: Vec<RepoFile>,
    /// Smallest first; split files only if every part is there.
    pub models: Vec<GgufChoice>,
}

impl RepoFiles {
    /// The model for what a person writes after the colon of `owner/name:QUANT`: a quantization (any case), the model's
    /// name or a file's path.
    pub fn find(&self, wanted: &str) -> Option<&GgufChoice> {
        let same = |text: &str| text.eq_ignore_ascii_case(wanted);
        let models = || self.models.iter().filter(|m| !m.is_mmproj);
        models()
            .find(|m| m.quant == wanted)
            .or_else(|| models().find(|m| same(&m.quant)))
            .or_else(|| models().find(|m| m.quant.to_ascii_uppercase().strip_prefix("UD-").is_some_and(same)))
            .or_else(|| self.models.iter().find(|m| same(&m.name) || m.files.iter().any(|f| same(&f.path))))
    }
}

#[derive(Deserialize)]
struct RawInfo {
    sha: String,
    #[serde(default)]
    gated: serde_json::Value,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    oid: String,
    size: u64,
}

impl Hub {
    /// The files of `repo` at a branch, tag or commit (`None`: `main`), pinned to the commit that it is now.
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::Gated`], [`HubError::BadName`], and those of [`Hub::search`].
    pub async fn files(&self, repo: &str, revision: Option<&str>) -> Result<RepoFiles, HubError> {
        check_repo(repo)?;
        let revision = revision.unwrap_or("main");
        check_revision(revision)?;
        let mut url = self.http.url(["api", "models"].into_iter().chain(repo.split('/')).chain(["revision", revision]));
        url.query_pairs_mut().append_pair("expand[]", "sha").append_pair("expand[]", "gated");
        let (info, _): (RawInfo, _) = self.http.json(url, repo).await?;
        if !is_hex(&info.sha, 40) {
            return Err(HubError::protocol(repo, "it has no commit id"));
        }
        let files = self.tree(repo, &info.sha).await?;
        let gated = !matches!(info.gated, serde_json::Value::Bool(false) | serde_json::Value::Null);
        Ok(RepoFiles { repo: repo.to_owned(), commit: info.sha, gated, models: models(&files), files })
    }

    async fn tree(&self, repo: &str, commit: &str) -> Result<Vec<RepoFile>, HubError> {
        let mut files = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let segments = ["api", "models"].into_iter().chain(repo.split('/')).chain(["tree", commit]);
            let mut url = self.http.url(segments);
            url.query_pairs_mut().append_pair("recursive", "true");
            if let Some(cursor) = &cursor {
                url.query_pairs_mut().append_pair("cursor", cursor);
            }
            let (entries, headers): (Vec<RawEntry>, _) = self.http.json(url, repo).await?;
            files.extend(entries.into_iter().filter_map(RawEntry::checked));
            match next_cursor(&headers) {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(files),
            }
        }
        Err(HubError::TooLarge { what: format!("the file list of {repo}"), limit: (MAX_PAGES * 1000) as u64 })
    }
}

impl RawEntry {
    /// A file with a usable name; others are left out as if they were not there.
    fn checked(self) -> Option<RepoFile> {
        if self.kind != "file" || safe_path(&self.path).is_err() {
            return None;
        }
        match self.lfs {
            Some(lfs) => {
                let sha256 = is_hex(&lfs.oid, 64).then(|| lfs.oid.to_ascii_lowercase());
                Some(RepoFile { path: self.path, size: lfs.size, sha256 })
            }
            None => Some(RepoFile { path: self.path, size: self.size, sha256: None }),
        }
    }
}

pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Groups GGUF files into models.
fn models(files: &[RepoFile]) -> Vec<GgufChoice> {
    let by_path: BTreeMap<&str, &RepoFile> = files.iter().map(|f| (f.path.as_str(), f)).collect();
    let mut models = Vec::new();
    for file in files {
        let Some(stem) = gguf_stem(&file.path) else { continue };
        let name = stem.rsplit('/').next().unwrap_or(stem);
        if name.to_ascii_lowercase().contains("imatrix") {
            continue;
        }
        let (name, parts) = match gguf::split_file_names(&file.path) {
            None => (name, vec![file.clone()]),
            Some(paths) if paths[0] == file.path => {
                let parts: Option<Vec<RepoFile>> =
                    paths.iter().map(|p| by_path.get(p.as_str()).map(|f| (*f).clone())).collect();
                let Some(parts) = parts else { continue };
                // "-00001-of-00003" is 15 bytes of ASCII.
                (&name[..name.len() - 15], parts)
            }
            Some(_) => continue,
        };
        let Some(total_bytes) = parts.iter().try_fold(0u64, |sum, f| sum.checked_add(f.size)) else { continue };
        models.push(GgufChoice {
            name: name.to_owned(),
            quant: quant_of(name).unwrap_or_else(|| name.to_owned()),
            is_mmproj: name.to_ascii_lowercase().contains("mmproj"),
            files: parts,
            total_bytes,
        });
    }
    models.sort_by(|a, b| (a.total_bytes, &a.name).cmp(&(b.total_bytes, &b.name)));
    tell_apart(&mut models, |model| model.name.clone());
    tell_apart(&mut models, |model| model.files[0].path.clone());
    models
}

/// Gives models that are called alike another [`GgufChoice::quant`]: people choose by it.
fn tell_apart(models: &mut [GgufChoice], other: impl Fn(&GgufChoice) -> String) {
    let mut called: BTreeMap<(bool, String), usize> = BTreeMap::new();
    let key = |model: &GgufChoice| (model.is_mmproj, model.quant.to_ascii_uppercase());
    models.iter().for_each(|model| *called.entry(key(model)).or_default() += 1);
    for model in models.iter_mut().filter(|model| called.get(&key(model)).is_some_and(|models| *models > 1)) {
        model.quant = other(model);
    }
}

fn gguf_stem(path: &str) -> Option<&str> {
    let (stem, end) = path.split_at_checked(path.len().checked_sub(5)?)?;
    end.eq_ignore_ascii_case(".gguf").then_some(stem)
}

/// The quantization in a model's file name, in capitals: "llama-3-8b.q4_k_m" gives "Q4_K_M"; with Unsloth's "UD-" where
/// the name has it, because that is another mixture of types.
pub fn quant_of(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['-', '.', ' ', '@']).collect();
    // From the end: "Q8_0" in "model-Q8_0-imat", and not the 4 of "model-4b".
    let (at, quant) = words.iter().enumerate().rev().find_map(|(i, word)| Some((i, quant_in_word(word)?)))?;
    let dynamic = at > 0 && words[at - 1] == "UD";
    Some(if dynamic { format!("UD-{quant}") } else { quant })
}

/// The longest tail of `word` (cut at `_`) that begins with a quantization.
fn quant_in_word(word: &str) -> Option<String> {
    let pieces: Vec<&str> = word.split('_').collect();
    (0..pieces.len()).find_map(|from| {
        let (head, rest) = (pieces[from], &pieces[from + 1..]);
        let plain = match head {
            "FP16" => Some("F16"),
            "FP32" => Some("F32"),
            "F16" | "F32" | "BF16" | "MXFP4" | "NVFP4" => Some(head),
            _ => None,
        };
        if let Some(plain) = plain {
            let moe = rest.first() == Some(&"MOE");
            return Some(if moe { format!("{plain}_MOE") } else { plain.to_owned() });
        }
        let digits = ["IQ", "TQ", "Q"].iter().find_map(|prefix| head.strip_prefix(prefix))?;
        if digits.len() != 1 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let known = |p: &&&str| {
            matches!(**p, "0" | "1" | "4" | "8" | "K" | "XXS" | "XS" | "S" | "M" | "L" | "XL" | "XXL" | "NL")
        };
        let tail: Vec<&str> = rest.iter().take_while(known).copied().collect();
        if tail.is_empty() && rest.is_empty() && digits != "8" && digits != "4" && digits != "6" {
            return None;
        }
        Some(std::iter::once(head).chain(tail).collect::<Vec<_>>().join("_"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantizations_from_names() {
        for (name, quant) in [
            ("Qwen3-8B-Q4_K_M", "Q4_K_M"),
            ("qwen2.5-7b-instruct-q4_k_m", "Q4_K_M"),
            ("llama-2-7b.Q5_0", "Q5_0"),
            ("gemma-4-E4B-it-UD-Q4_K_XL", "UD-Q4_K_XL"),
            ("Model-UD-IQ1_S", "UD-IQ1_S"),
            ("gpt-oss-20b-mxfp4", "MXFP4"),
            ("Qwen3.6-35B-A3B-MXFP4_MOE", "MXFP4_MOE"),
            ("Phi-3-mini-4k-instruct-fp16", "F16"),
            ("Phi-3-mini-4k-instruct-q4", "Q4"),
            ("m-BF16", "BF16"),
            ("m-IQ4_NL", "IQ4_NL"),
            ("m-IQ2_XXS", "IQ2_XXS"),
            ("m-TQ1_0", "TQ1_0"),
            ("m-Q4_0_4_8", "Q4_0_4_8"),
            ("m-Q6_K_L-imat", "Q6_K_L"),
            ("m-Q8_0", "Q8_0"),
            ("smollm2_q8_0", "Q8_0"),
            ("mmproj-model-f16", "F16"),
            ("rustdoc-tiny-Q4_K_M", "Q4_K_M"),
        ] {
            assert_eq!(quant_of(name).as_deref(), Some(quant), "{name}");
        }
        for name in ["ggml-model", "Qwen3-8B", "", "model-4b", "q", "Q_K_M", "phi-q3"] {
            assert_eq!(quant_of(name), None, "{name}");
        }
    }

    fn file(path: &str, size: u64) -> RepoFile {
        RepoFile { path: path.into(), size, sha256: None }
    }

    #[test]
    fn models_are_grouped() {
        let files = [
            file("README.md", 10),
            file("m-Q8_0.gguf", 300),
            file("Q2_K/m-Q2_K-00002-of-00002.gguf", 40),
            file("Q2_K/m-Q2_K-00001-of-00002.gguf", 60),
            file("m-Q4_0-00001-of-00003.gguf", 1),
            file("mmproj-F16.gguf", 5),
            file("m.imatrix.gguf", 7),
            file("UPPER.GGUF", 200),
        ];
        let models = models(&files);
        let brief: Vec<_> =
            models.iter().map(|m| (m.name.as_str(), m.quant.as_str(), m.total_bytes, m.files.len())).collect();
        assert_eq!(
            brief,
            [
                ("mmproj-F16", "F16", 5, 1),
                ("m-Q2_K", "Q2_K", 100, 2),
                ("UPPER", "UPPER", 200, 1),
                ("m-Q8_0", "Q8_0", 300, 1)
            ]
        );
        assert!(models[0].is_mmproj && !models[1].is_mmproj);
        assert_eq!(models[1].files[0].path, "Q2_K/m-Q2_K-00001-of-00002.gguf");
    }

    #[test]
    fn models_that_are_called_alike_are_told_apart() {
        let files = [
            file("tiny-Q8_0.gguf", 1),
            file("large-Q8_0.gguf", 2),
            file("large-Q4_0.gguf", 3),
            file("a/model-F16.gguf", 4),
            file("b/model-f16.gguf", 5),
            file("b/Model-f16.gguf", 6),
        ];
        let models = models(&files);
        let quants: Vec<&str> = models.iter().map(|m| m.quant.as_str()).collect();
        let paths = ["a/model-F16.gguf", "b/model-f16.gguf", "b/Model-f16.gguf"];
        assert_eq!(quants[..3], ["tiny-Q8_0", "large-Q8_0", "Q4_0"]);
        assert_eq!(quants[3..], paths);
        let repo =
            RepoFiles { repo: "a/b".into(), commit: "0".repeat(40), gated: false, models, files: files.to_vec() };
        for model in &repo.models {
            assert_eq!(repo.find(&model.quant).map(|m| m.total_bytes), Some(model.total_bytes), "{}", model.quant);
        }
    }

    #[test]
    fn sizes_that_overflow_are_left_out() {
        let files = [file("m-00001-of-00002.gguf", u64::MAX), file("m-00002-of-00002.gguf", 1)];
        assert!(models(&files).is_empty());
    }

    #[test]
    fn a_choice_is_found_by_what_people_write() {
        let files = vec![file("m-UD-Q4_K_XL.gguf", 3), file("m-Q8_0.gguf", 4), file("mmproj-Q8_0.gguf", 1)];
        let repo =
            RepoFiles { repo: "a/b".into(), commit: "0".repeat(40), gated: false, models: models(&files), files };
        let found = |wanted: &str| repo.find(wanted).map(|m| m.name.as_str());
        assert_eq!(found("q8_0"), Some("m-Q8_0"));
        assert_eq!(found("Q4_K_XL"), Some("m-UD-Q4_K_XL"));
        assert_eq!(found("mmproj-Q8_0.gguf"), Some("mmproj-Q8_0"));
        assert_eq!(found("m-q8_0.gguf"), Some("m-Q8_0"));
        assert_eq!(found("Q5_K"), None);
    }
}
