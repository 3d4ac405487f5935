//! Searching GGUF repositories.

use serde::{Deserialize, Serialize};

use crate::{Hub, HubError, check_repo};

/// The order of results, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    #[default]
    Trending,
    Downloads,
    Likes,
    Modified,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchQuery {
    /// Words that the repository's name contains; empty finds all.
    pub text: String,
    pub author: Option<String>,
    pub sort: Sort,
    /// Results on a page, 1 to 100.
    pub limit: u32,
    /// [`Page::next`] of the page before.
    pub cursor: Option<String>,
    /// Asks for the numbers of parameters, with which the Hub sends every model's chat template: some 20 kB each.
    pub parameters: bool,
}

impl Default for SearchQuery {
    fn default() -> Self {
        SearchQuery {
            text: String::new(),
            author: None,
            sort: Sort::default(),
            limit: 30,
            cursor: None,
            parameters: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// `owner/name`.
    pub repo: String,
    /// In the last 30 days.
    pub downloads: u64,
    pub likes: u64,
    /// ISO 8601, UTC.
    pub last_modified: Option<String>,
    /// Asks to accept terms before a download.
    pub gated: bool,
    pub tags: Vec<String>,
    /// Where they were asked for and the Hub has read a header of the repository.
    pub parameters: Option<u64>,
}

/// A model as `/api/models` gives it.
#[derive(Deserialize)]
struct RawModel {
    id: String,
    #[serde(default)]
    downloads: u64,
    #[serde(default)]
    likes: u64,
    #[serde(default, rename = "lastModified")]
    last_modified: Option<String>,
    /// `false`, `"auto"` or `"manual"`.
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    gguf: serde_json::Value,
}

/// The fields to ask for: without `expand` the answer has no dates, with `full` it lists every file.
const FIELDS: [&str; 5] = ["downloads", "likes", "lastModified", "gated", "tags"];

impl Hub {
    /// One page of GGUF repositories.
    ///
    /// # Errors
    /// [`HubError::Offline`], [`HubError::RateLimited`], [`HubError::Server`], [`HubError::Protocol`].
    pub async fn search(&self, query: SearchQuery) -> Result<Page<ModelSummary>, HubError> {
        let mut url = self.http.url(["api", "models"]);
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("filter", "gguf");
            if !query.text.trim().is_empty() {
                pairs.append_pair("search", query.text.trim());
            }
            if let Some(author) = query.author.as_deref().filter(|a| !a.trim().is_empty()) {
                pairs.append_pair("author", author.trim());
            }
            let sort = match query.sort {
                Sort::Trending => "trendingScore",
                Sort::Downloads => "downloads",
                Sort::Likes => "likes",
                Sort::Modified => "lastModified",
            };
            pairs.append_pair("sort", sort).append_pair("limit", &query.limit.clamp(1, 100).to_string());
            if let Some(cursor) = &query.cursor {
                pairs.append_pair("cursor", cursor);
            }
            for field in FIELDS.iter().chain(query.parameters.then_some(&"gguf")) {
                pairs.append_pair("expand[]", field);
            }
        }
        let (models, headers): (Vec<RawModel>, _) = self.http.json(url, "the search").await?;
        let items = models.into_iter().filter_map(RawModel::checked).collect();
        Ok(Page { items, next: next_cursor(&headers) })
    }
}

impl RawModel {
    /// Drops what could not be used afterwards anyway and bounds the rest.
    fn checked(self) -> Option<ModelSummary> {
        check_repo(&self.id).ok()?;
        Some(ModelSummary {
            repo: self.id,
            downloads: self.downloads,
            likes: self.likes,
            last_modified: self.last_modified.filter(|d| d.len() <= 40),
            gated: !matches!(self.gated, serde_json::Value::Bool(false) | serde_json::Value::Null),
            // The projector of a model that sees has none that count.
            parameters: self.gguf["total"].as_u64().filter(|count| *count > 0),
            tags: self.tags.into_iter().filter(|t| t.len() <= 100).take(100).collect(),
        })
    }
}

/// The cursor of the `rel="next"` link. Only the cursor is taken over, never the address: it is the server's.
pub(crate) fn next_cursor(headers: &reqwest::header::HeaderMap) -> Option<String> {
    let links = headers.get("link")?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    let (_, query) = address.split_once('?')?;
    let cursor = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "cursor")?.1;
    (!cursor.is_empty() && cursor.len() <= 2000).then(|| cursor.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue};

    #[test]
    fn cursors_come_from_the_next_link() {
        let cursor = |link: &'static str| {
            next_cursor(&HeaderMap::from_iter([("link".parse().unwrap(), HeaderValue::from_static(link))]))
        };
        assert_eq!(
            cursor("<https://huggingface.co/api/models?limit=2&cursor=eyJh%3D>; rel=\"next\"").as_deref(),
            Some("eyJh=")
        );
        assert_eq!(
            cursor("<https://x/?cursor=a>; rel=\"prev\", <https://x/?cursor=b>; rel=\"next\"").as_deref(),
            Some("b")
        );
        assert_eq!(cursor("<https://x/?limit=1>; rel=\"next\""), None);
        assert_eq!(cursor("nonsense"), None);
    }

    #[test]
    fn a_hostile_model_is_left_out() {
        let raw = |id: &str| RawModel {
            id: id.into(),
            downloads: 1,
            likes: 1,
            last_modified: Some("x".repeat(1000)),
            gated: serde_json::json!("auto"),
            tags: vec!["t".repeat(1000), "gguf".into()],
            gguf: serde_json::json!({ "total": -1 }),
        };
        assert_eq!(raw("../../etc").checked(), None);
        let model = raw("a/b").checked().unwrap();
        assert_eq!((model.last_modified, model.gated, model.tags), (None, true, vec!["gguf".to_owned()]));
        assert_eq!(model.parameters, None);
    }
}
