//! Search, file lists, headers and refusals against the fake hub.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, REPO, TOKEN, client};
use fake_hub::{Canned, FakeHub};
use gguf::{Array, Gguf, GgufWriter, Value};
use hub::{HubError, Needs, RepoFile, SearchQuery, Sort};
use std::time::Duration;

#[tokio::test]
async fn search_filters_sorts_and_pages() {
    let server = FakeHub::start().unwrap();
    for i in 0..25 {
        let repo = format!("owner/Model-{i}-GGUF");
        server.add_bytes(&repo, "m-Q4_0.gguf", vec![1]);
        server.set_popularity(&repo, 1000 + i, 500 - i);
    }
    server.add_bytes("owner/Model-in-safetensors", "m.safetensors", vec![1]);
    server.add_bytes("other/Thing-GGUF", "m.gguf", vec![1]);
    server.gate("other/Thing-GGUF");
    let hub = client(&server.endpoint(), None);

    let mut query = SearchQuery { text: "model".into(), sort: Sort::Downloads, limit: 10, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page = hub.search(query.clone()).await.unwrap();
        assert!(page.items.len() <= 10);
        found.extend(page.items.into_iter().map(|m| m.repo));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    let expected: Vec<String> = (0..25).rev().map(|i| format!("owner/Model-{i}-GGUF")).collect();
    assert_eq!(found, expected);

    let likes = SearchQuery { text: "model".into(), sort: Sort::Likes, limit: 1, ..Default::default() };
    assert_eq!(hub.search(likes).await.unwrap().items[0].repo, "owner/Model-0-GGUF");
    let author = SearchQuery { author: Some("other".into()), ..Default::default() };
    let page = hub.search(author).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
    assert!(page.items[0].gated && page.items[0].last_modified.is_some());
    assert_eq!(page.items[0].parameters, None, "not asked for");
    server.set_parameters("other/Thing-GGUF", 8_190_735_360);
    let sized = SearchQuery { author: Some("other".into()), parameters: true, ..Default::default() };
    assert_eq!(hub.search(sized).await.unwrap().items[0].parameters, Some(8_190_735_360));
    let unread = SearchQuery { text: "Model-1-".into(), parameters: true, ..Default::default() };
    assert_eq!(hub.search(unread).await.unwrap().items[0].parameters, None);
    let nothing = SearchQuery { text: "no such & thing #?".into(), ..Default::default() };
    assert!(hub.search(nothing).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn files_with_sizes_hashes_and_quantizations() {
    let bench = Bench::new(&[
        ("README.md", b"read me"),
        ("m-Q8_0.gguf", &[8; 300]),
        ("m-Q4_K_M.gguf", &[4; 200]),
        ("BF16/m-BF16-00001-of-00002.gguf", &[1; 600]),
        ("BF16/m-BF16-00002-of-00002.gguf", &[2; 400]),
        ("mmproj-F16.gguf", &[3; 50]),
        ("evil\\..\\name.gguf", &[5; 10]),
    ]);
    let files = bench.hub.files(REPO, None).await.unwrap();
    assert_eq!(files.commit, bench.server.commit(REPO).unwrap());
    assert_eq!(files.files.len(), 6, "the evil name is left out");
    let readme = files.files.iter().find(|f| f.path == "README.md").unwrap();
    assert_eq!((readme.size, readme.sha256.clone()), (7, None));
    let brief: Vec<_> =
        files.models.iter().map(|m| (m.quant.as_str(), m.total_bytes, m.files.len(), m.is_mmproj)).collect();
    assert_eq!(
        brief,
        [("F16", 50, 1, true), ("Q4_K_M", 200, 1, false), ("Q8_0", 300, 1, false), ("BF16", 1000, 2, false)]
    );
    assert_eq!(files.models[1].files[0].sha256, Some(fake_hub::sha256_hex(&[4; 200])));

    // The same over many pages, and at a commit that is no longer the newest.
    bench.server.faults(|f| f.tree_page = 2);
    bench.server.add_bytes(REPO, "m-Q8_0.gguf", vec![9; 301]);
    assert_eq!(bench.hub.files(REPO, Some(&files.commit)).await.unwrap(), files);
    let newer = bench.hub.files(REPO, Some("main")).await.unwrap();
    assert_ne!(newer.commit, files.commit);
    assert_eq!(newer.find("q8_0").unwrap().total_bytes, 301);
    bench.check_manners();
}

/// A header with a vocabulary of so many tokens, about 30 bytes each.
fn model(tokens: usize) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..tokens).map(|i| format!("token number {i}").into_bytes()).collect();
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "llama").unwrap();
    writer.set("tokenizer.ggml.tokens", Value::Array(Array::Strings(words.iter().collect()))).unwrap();
    writer.header().unwrap()
}

#[tokio::test]
async fn only_the_header_of_a_remote_file_is_read() {
    for tokens in [3, 200_000] {
        let mut bytes = model(tokens);
        let header_len = bytes.len() as u64;
        let whole = Gguf::parse(&bytes, header_len).unwrap();
        // Nobody reads what follows the tensors.
        bytes.resize(bytes.len() + 20_000_000, 0);
        let bench = Bench::new(&[("m.gguf", &bytes)]);
        bench.server.faults(|f| f.resolve.push_back(Canned::status(503)));
        let file = bench.hub.files(REPO, None).await.unwrap().files.remove(0);
        let commit = bench.server.commit(REPO).unwrap();
        let header = bench.hub.header(REPO, &commit, &file).await.unwrap();
        assert_eq!(header.metadata, whole.metadata);
        assert_eq!(header.file_len, file.size);
        assert!(bench.server.served() < 2 * header_len + (2 << 20), "{} bytes read", bench.server.served());
        // A server without ranges does no harm either.
        bench.server.faults(|f| f.ignore_range = true);
        assert_eq!(bench.hub.header(REPO, &commit, &file).await.unwrap().metadata, whole.metadata);
        bench.check_manners();
    }
}

#[tokio::test]
async fn hostile_headers_are_refused() {
    // A header that promises 100 MiB of metadata in a file that is that long.
    let mut endless = b"GGUF".to_vec();
    endless.extend(3u32.to_le_bytes());
    endless.extend(0u64.to_le_bytes());
    endless.extend(1u64.to_le_bytes());
    endless.extend(1u64.to_le_bytes());
    endless.extend(b"k");
    endless.extend(9u32.to_le_bytes());
    endless.extend(0u32.to_le_bytes());
    endless.extend((100u64 << 20).to_le_bytes());
    endless.resize(101 << 20, 0);
    let bench =
        Bench::new(&[("a-endless.gguf", &endless), ("b-empty.gguf", b""), ("c-other.gguf", b"PK\x03\x04 not a model")]);
    let files = bench.hub.files(REPO, None).await.unwrap();
    let error = bench.hub.header(REPO, &files.commit, &files.files[0]).await.unwrap_err();
    assert!(matches!(error.code(), "too_large" | "bad_header"), "{error}");
    assert!(bench.server.served() < 66 << 20);
    for file in &files.files[1..] {
        assert_eq!(
            bench.hub.header(REPO, &files.commit, file).await.unwrap_err().code(),
            "bad_header",
            "{}",
            file.path
        );
    }
}

#[tokio::test]
async fn gates_and_tokens() {
    let bench = Bench::new(&[("m.gguf", &model(3))]);
    bench.server.gate(REPO);
    bench.server.add_token("hf_accepted", &[REPO]);
    let files = bench.hub.files(REPO, None).await.unwrap();
    assert!(files.gated, "the list of a gated repository is public");
    let header = async |token: Option<&str>| {
        let hub = client(&bench.server.endpoint(), token);
        hub.header(REPO, &files.commit, &files.files[0]).await
    };
    let error = header(None).await.unwrap_err();
    assert!(matches!(error, HubError::Gated { needs: Needs::Token, .. }), "{error}");
    let error = header(Some(TOKEN)).await.unwrap_err();
    assert!(matches!(error, HubError::Gated { needs: Needs::Terms, .. }), "{error}");
    let error = header(Some("hf_wrong")).await.unwrap_err();
    assert!(matches!(error, HubError::TokenRefused), "{error}");
    header(Some("hf_accepted")).await.unwrap();
    bench.check_manners();
}

#[tokio::test]
async fn refusals_are_typed() {
    let bench = Bench::new(&[("m.gguf", &model(3))]);
    let commit = bench.server.commit(REPO).unwrap();
    for hub in [client(&bench.server.endpoint(), None), bench.hub.clone()] {
        assert_eq!(hub.files("nobody/nothing", None).await.unwrap_err().code(), "not_found");
        assert_eq!(hub.files(REPO, Some("no-such-branch")).await.unwrap_err().code(), "not_found");
        let missing = RepoFile { path: "gone.gguf".into(), size: 1, sha256: None };
        assert_eq!(hub.header(REPO, &commit, &missing).await.unwrap_err().code(), "not_found");
    }
    for evil in ["../../etc/passwd", "owner/../x", "a/b?c", ""] {
        assert_eq!(bench.hub.files(evil, None).await.unwrap_err().code(), "bad_name");
    }
    // Somebody waits for a header: a long pause is told, not kept.
    let there = bench.hub.files(REPO, None).await.unwrap().files.remove(0);
    bench.server.faults(|f| f.resolve.push_back(Canned::rate_limited(600)));
    let header = bench.hub.header(REPO, &commit, &there);
    let error = tokio::time::timeout(Duration::from_secs(300), header).await.expect("no pause").unwrap_err();
    assert_eq!(error.code(), "rate_limited");
    let canned = [
        (Canned::rate_limited(7), "rate_limited"),
        (Canned::status(500), "server"),
        (Canned::status(200).body("<html>a captive portal</html>"), "protocol"),
        (Canned::status(200).body("x".repeat(17 << 20)), "too_large"),
        (Canned::status(302).header("location", "http://127.0.0.1:1/elsewhere"), "server"),
    ];
    for (answer, code) in canned {
        bench.server.faults(|f| f.api.push_back(answer));
        let error = bench.hub.search(SearchQuery::default()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        if code == "rate_limited" {
            assert!(error.to_string().contains("7 s"), "{error}");
        }
    }
    let endpoint = {
        let gone = FakeHub::start().unwrap();
        gone.endpoint()
    };
    assert_eq!(client(&endpoint, None).search(SearchQuery::default()).await.unwrap_err().code(), "offline");
    assert!(hub::Hub::new(hub::HubConfig::new("file:///etc".parse().unwrap())).is_err());
}
