//! The Hub as the window shows it: search, suggestions, quantizations with what they need here.

use crate::error::Result;
use crate::plans;
use crate::wire::{
    ErrorCode, HeaderFacts, HubModel, HubModelPage, HubPage, HubQuery, HubSort, LoadSettings, Quality, QuantRow,
    WireError,
};
use hub::{GgufChoice, Hub, RECOMMENDED, RepoFiles, SearchQuery, Sort};
use model::Model;
use planner::Facts;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Repositories and headers kept, so that a plan needs the network once.
const MAX_KEPT: usize = 64;

#[derive(Default)]
pub struct Discover {
    repos: Mutex<HashMap<(String, String), Arc<RepoFiles>>>,
    /// By repository, commit and quantization.
    headers: Mutex<HashMap<(String, String, String), Arc<Model>>>,
}

impl Discover {
    /// Suggestions that this version can run.
    pub fn recommended(&self) -> HubPage {
        let runs = |entry: &&hub::Recommended| model::supported_architectures().any(|name| name == entry.family);
        let model = |entry: &hub::Recommended| HubModel {
            repo: entry.repo.into(),
            downloads: None,
            likes: None,
            updated: None,
            gated: false,
            parameters: None,
            note: Some(entry.note_key.into()),
        };
        HubPage { models: RECOMMENDED.iter().filter(runs).map(model).collect(), next: None }
    }

    pub async fn search(&self, hub: &Hub, query: HubQuery) -> Result<HubPage> {
        let sort = match query.sort {
            HubSort::Downloads => Sort::Downloads,
            HubSort::Likes => Sort::Likes,
            HubSort::Trending => Sort::Trending,
            HubSort::Updated => Sort::Modified,
        };
        let HubQuery { text, cursor, parameters, .. } = query;
        let query = SearchQuery { text, sort, cursor, parameters, ..SearchQuery::default() };
        let page = hub.search(query).await?;
        let note = |repo: &str| RECOMMENDED.iter().find(|entry| entry.repo == repo).map(|e| e.note_key.to_owned());
        let models = page.items.into_iter().map(|item| HubModel {
            note: note(&item.repo),
            repo: item.repo,
            downloads: Some(item.downloads),
            likes: Some(item.likes),
            updated: item.last_modified.as_deref().and_then(unix_ms),
            gated: item.gated,
            parameters: item.parameters,
        });
        Ok(HubPage { models: models.collect(), next: page.next })
    }

    /// The quantizations of a repository, without plans.
    pub async fn model(&self, hub: &Hub, repo: &str, facts: &Facts, installed: &Installed) -> Result<HubModelPage> {
        let files = Arc::new(hub.files(repo, None).await?);
        keep(&self.repos, (files.repo.clone(), files.commit.clone()), files.clone());
        let known = files.models.iter().find_map(|choice| self.known_header(&files, choice));
        let rows = files.models.iter().filter(|choice| !choice.is_mmproj);
        Ok(HubModelPage {
            repo: files.repo.clone(),
            commit: files.commit.clone(),
            gated: files.gated,
            quants: rows.map(|choice| row(&files, choice, known.as_deref(), facts, installed)).collect(),
        })
    }

    /// One quantization with its plan, from the remote header. A header that cannot be used is an answer too.
    pub async fn plan(
        &self,
        hub: &Hub,
        (repo, commit, quant): (&str, &str, &str),
        settings: &LoadSettings,
        facts: &Facts,
        installed: &Installed,
    ) -> Result<QuantRow> {
        let files = self.files(hub, repo, commit).await?;
        let choice = choose(&files, quant)?;
        let planned = match self.header(hub, &files, choice).await {
            Ok(model) => plans::plan(&model, None, facts, settings).map(|plan| (model, plan)),
            Err(problem) if problem.code == ErrorCode::Cancelled => return Err(problem),
            Err(problem) => Err(problem),
        };
        Ok(match planned {
            Ok((model, plan)) => QuantRow { plan: Some(plan), ..row(&files, choice, Some(&model), facts, installed) },
            Err(problem) => QuantRow { problem: Some(problem), ..row(&files, choice, None, facts, installed) },
        })
    }

    /// The header of a quantization (or file) of `main`.
    pub async fn describe(&self, hub: &Hub, repo: &str, wanted: &str) -> Result<Arc<Model>> {
        let files = hub.files(repo, None).await?;
        self.header(hub, &files, choose(&files, wanted)?).await
    }

    /// What to download for a quantization.
    pub async fn choice(&self, hub: &Hub, repo: &str, commit: &str, quant: &str) -> Result<GgufChoice> {
        let files = self.files(hub, repo, commit).await?;
        choose(&files, quant).cloned()
    }

    async fn files(&self, hub: &Hub, repo: &str, commit: &str) -> Result<Arc<RepoFiles>> {
        let key = (repo.to_owned(), commit.to_owned());
        if let Some(files) = lock(&self.repos).get(&key) {
            return Ok(files.clone());
        }
        let files = Arc::new(hub.files(repo, Some(commit)).await?);
        keep(&self.repos, key, files.clone());
        Ok(files)
    }

    fn known_header(&self, files: &RepoFiles, choice: &GgufChoice) -> Option<Arc<Model>> {
        lock(&self.headers).get(&header_key(files, choice)).cloned()
    }

    async fn header(&self, hub: &Hub, files: &RepoFiles, choice: &GgufChoice) -> Result<Arc<Model>> {
        if let Some(model) = self.known_header(files, choice) {
            return Ok(model);
        }
        let gguf = hub.model_header(&files.repo, &files.commit, &choice.files).await?;
        let model = Arc::new(model::describe(&gguf)?);
        keep(&self.headers, header_key(files, choice), model.clone());
        Ok(model)
    }
}

/// Which models are in the library already: "owner/name" and quantization to id.
pub type Installed = HashMap<(String, String), String>;

fn header_key(files: &RepoFiles, choice: &GgufChoice) -> (String, String, String) {
    (files.repo.clone(), files.commit.clone(), choice.quant.clone())
}

fn choose<'a>(files: &'a RepoFiles, quant: &str) -> Result<&'a GgufChoice> {
    let found = files.find(quant);
    found.ok_or_else(|| WireError::new(ErrorCode::NotFound, format!("{} has no {quant}", files.repo)).about(quant))
}

fn row(
    files: &RepoFiles,
    choice: &GgufChoice,
    model: Option<&Model>,
    facts: &Facts,
    installed: &Installed,
) -> QuantRow {
    // All quantizations of a repository hold the same weights.
    let bits = model.map(|model| choice.total_bytes as f64 * 8.0 / model.parameters.max(1) as f64);
    QuantRow {
        quant: choice.quant.clone(),
        files: choice.files.iter().map(|file| file.path.clone()).collect(),
        bytes: choice.total_bytes,
        header: model.map(|model| HeaderFacts {
            architecture: model.architecture.clone(),
            parameters: model.parameters,
            context_max: model.context_length,
        }),
        bits_per_weight: bits,
        quality: bits.map(quality),
        plan: None,
        recommended: recommend(&files.models, facts).filter(|(best, _)| *best == choice.quant).map(|(_, why)| why),
        installed: installed.get(&(files.repo.clone(), choice.quant.clone())).cloned(),
        problem: None,
    }
}

/// By bits per weight, as the loss of perplexity goes for the usual types.
fn quality(bits: f64) -> Quality {
    match bits {
        b if b >= 12.0 => Quality::Original,
        b if b >= 7.5 => Quality::NearOriginal,
        b if b >= 5.3 => Quality::VeryGood,
        b if b >= 4.2 => Quality::Balanced,
        b if b >= 3.3 => Quality::Reduced,
        _ => Quality::VisiblyWorse,
    }
}

/// What a model takes besides its file and a fifth of that, roughly.
const BUFFERS: u64 = 512 << 20;

/// The largest model file that runs from so much memory, roughly; what [`recommend`] goes by.
pub fn largest_file(memory: u64) -> u64 {
    memory.saturating_sub(BUFFERS) / 6 * 5
}

/// The quantization to take here and why, by sizes alone: KV cache and buffers are taken as a fifth of the file and
/// half a gigabyte.
pub fn recommend(models: &[GgufChoice], facts: &Facts) -> Option<(String, String)> {
    // Whatever a server says: no sum of sizes is small.
    let needs = |choice: &GgufChoice| choice.total_bytes.saturating_add(choice.total_bytes / 5).saturating_add(BUFFERS);
    // Smallest first. More than 8 bits is space without use; below 4 bits answers get visibly worse.
    let usual: Vec<&GgufChoice> = models.iter().filter(|choice| !choice.is_mmproj && level(choice) <= 80).collect();
    let good: Vec<&&GgufChoice> = usual.iter().filter(|choice| level(choice) >= 40).collect();
    let vram = facts.accelerators.iter().map(|gpu| gpu.available().saturating_sub(gpu.overhead)).sum::<u64>();
    let answer = |choice: &GgufChoice, why: &str| Some((choice.quant.clone(), why.to_owned()));
    // The best up to 6 bits, because the rest of the memory is worth more as context.
    if let Some(best) = good.iter().rev().find(|choice| level(choice) < 70 && needs(choice) <= vram) {
        return answer(best, "fitsGpu");
    }
    // From RAM, speed goes with size: the one around 4 bits.
    let fits_ram = |choice: &&GgufChoice| needs(choice) <= facts.ram_available;
    let balanced = usual.iter().find(|choice| choice.quant.to_ascii_uppercase().ends_with("Q4_K_M"));
    if let Some(best) = balanced.filter(|choice| fits_ram(choice)) {
        return answer(best, "fitsRam");
    }
    if let Some(best) = good.iter().find(|choice| fits_ram(choice)) {
        return answer(best, "fitsRam");
    }
    usual.iter().rev().find(|choice| fits_ram(choice)).or(usual.first()).and_then(|choice| answer(choice, "smallest"))
}

/// Tens of bits in the name: 40 for "IQ4_XS", 160 for "F16"; 160 too where the name says nothing.
fn level(choice: &GgufChoice) -> u32 {
    let name = choice.quant.to_ascii_uppercase();
    if name.contains("MXFP4") || name.contains("NVFP4") {
        return 40;
    }
    let digit = name.split('Q').skip(1).find_map(|rest| rest.chars().next()?.to_digit(10));
    digit.map_or(160, |digit| digit * 10)
}

fn keep<K: std::hash::Hash + Eq, V>(map: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut map = lock(map);
    if map.len() >= MAX_KEPT {
        map.clear();
    }
    map.insert(key, value);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn unix_ms(iso: &str) -> Option<u64> {
    u64::try_from(chrono::DateTime::parse_from_rfc3339(iso).ok()?.timestamp_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_disk_has_are_not_small() {
        let choice = |quant: &str, total_bytes: u64| GgufChoice {
            name: quant.into(),
            quant: quant.into(),
            files: Vec::new(),
            total_bytes,
            is_mmproj: false,
        };
        let facts = Facts { ram_available: 8 << 30, ..Facts::default() };
        let models = [choice("Q2_K", 1 << 30), choice("Q4_K_M", u64::MAX / 6 * 5), choice("Q8_0", u64::MAX)];
        assert_eq!(recommend(&models, &facts), Some(("Q2_K".into(), "smallest".into())));
    }
}
