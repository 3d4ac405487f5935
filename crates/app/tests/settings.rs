//! Settings survive restarts, old versions and damage.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::{config, open, try_own};
use std::path::Path;
use std::time::Duration;

fn write(folder: &Path, text: &str) {
    std::fs::create_dir_all(folder.join("data")).unwrap();
    std::fs::write(folder.join("data/settings.json"), text).unwrap();
}

fn set_aside(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("data")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("settings.json.broken")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_over_a_restart_with_the_token_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    assert_eq!(app.settings_get(), Settings::default());
    let wanted = Settings { language: LanguageChoice::Ja, threads: Some(3), ..Settings::default() };
    app.settings_set(wanted.clone()).await.unwrap();
    assert!(app.hub_token_set(Some("hf_secret".into())).await.unwrap().has_hub_token);
    drop(app);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path().join("data/hub-token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else may read the token");
    }
    let text = std::fs::read_to_string(folder.path().join("data/settings.json")).unwrap();
    assert!(text.contains("\"version\": 2") && !text.contains("hf_secret"), "{text}");
    let (app, _) = open(folder.path(), |_| {});
    assert_eq!(app.settings_get(), Settings { has_hub_token: true, ..wanted });
    assert!(!app.hub_token_set(None).await.unwrap().has_hub_token);
    assert!(!folder.path().join("data/hub-token").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), r#"{"theme":"dark","load":{"m":{"kvTypeK":"q80","kvTypeV":"f16"}}}"#);
    let settings = open(folder.path(), |_| {}).0.settings_get();
    assert_eq!(settings.theme, Theme::Dark);
    assert_eq!((settings.load["m"].kv_type_k, settings.load["m"].kv_type_v), (KvType::Q8_0, KvType::F16));
    assert_eq!(set_aside(folder.path()), Vec::<String>::new());
}

/// Version 1 had one GPU, or null for all.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_gpu_of_older_settings_stays_chosen() {
    let only = |id: &str| GpuChoice::Only { gpus: vec![GpuName { id: id.into(), name: String::new() }] };
    for (version, gpu, expected, broken) in [
        (r#""version":1,"#, r#""gpu":"GPU-7","#, only("GPU-7"), 0),
        ("", r#""gpu":"GPU-7","#, only("GPU-7"), 0),
        (r#""version":1,"#, r#""gpu":null,"#, GpuChoice::All, 0),
        (r#""version":1,"#, "", GpuChoice::All, 0),
        (r#""version":1,"#, r#""gpu":7,"#, GpuChoice::All, 1),
        (r#""version":2,"#, r#""gpus":{"type":"only","gpus":[{"id":"GPU-7"}]},"#, GpuChoice::All, 1),
        (r#""version":2,"#, r#""gpus":{"type":"only","gpus":[]},"#, GpuChoice::Only { gpus: Vec::new() }, 0),
        (r#""version":2,"#, r#""gpus":{"type":"all"},"#, GpuChoice::All, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &format!(r#"{{{version}{gpu}"theme":"dark"}}"#));
        let (app, _) = open(folder.path(), |_| {});
        let settings = app.settings_get();
        assert_eq!((settings.theme, &settings.gpus), (Theme::Dark, &expected), "{version}{gpu}");
        assert_eq!(set_aside(folder.path()).len(), broken, "{version}{gpu}");
        // Written anew, it means the same.
        app.settings_set(Settings { theme: Theme::Light, ..settings }).await.unwrap();
        drop(app);
        let settings = open(folder.path(), |_| {}).0.settings_get();
        assert_eq!((settings.theme, settings.gpus), (Theme::Light, expected), "{version}{gpu}");
        assert_eq!(set_aside(folder.path()).len(), broken, "{version}{gpu}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_kept_and_the_defaults_are_used() {
    let folder = tempfile::tempdir().unwrap();
    for (round, text) in ["{\"theme\":\"dark\"", "[]", "\u{0}\u{0}\u{0}"].into_iter().enumerate() {
        write(folder.path(), text);
        let (app, _) = open(folder.path(), |_| {});
        assert_eq!(app.settings_get(), Settings::default());
        let told = app.startup().kept_aside;
        let aside = set_aside(folder.path());
        assert_eq!(aside.len(), round + 1);
        assert!(told.len() == 1 && told[0].ends_with(&aside[round]), "{told:?}");
        assert_eq!(std::fs::read_to_string(folder.path().join("data").join(&aside[round])).unwrap(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_field_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let bad = r#"{"version":1,"theme":"purple","language":"ja","sampling":{"temperature":-5},"threads":8}"#;
    write(folder.path(), bad);
    let settings = open(folder.path(), |_| {}).0.settings_get();
    let expected = Settings { language: LanguageChoice::Ja, threads: Some(8), ..Settings::default() };
    assert_eq!(settings, expected);
    assert_eq!(set_aside(folder.path()).len(), 1);
    // What was written in its place is whole.
    let (app, _) = open(folder.path(), |_| {});
    assert_eq!(app.settings_get(), expected);
    assert!(app.startup().kept_aside.is_empty());
    assert_eq!(set_aside(folder.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_is_kept_and_read_as_far_as_possible() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), r#"{"version":99,"theme":"light","holograms":true}"#);
    assert_eq!(open(folder.path(), |_| {}).0.settings_get().theme, Theme::Light);
    assert_eq!(set_aside(folder.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_out_of_range_are_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let sampling = |change: fn(&mut Sampling)| {
        let mut settings = Settings::default();
        change(&mut settings.sampling);
        settings
    };
    let bad = [
        sampling(|s| s.temperature = f32::NAN),
        sampling(|s| s.top_p = 1.5),
        Settings { hub_endpoint: Some("file:///etc".into()), ..Settings::default() },
        Settings { models_folder: Some("relative".into()), ..Settings::default() },
        Settings { threads: Some(0), ..Settings::default() },
        Settings { system_prompt: "x".repeat(5 << 20), ..Settings::default() },
    ];
    for settings in bad {
        assert_eq!(app.settings_set(settings).await.unwrap_err().code, ErrorCode::BadArgument);
    }
    assert_eq!(app.settings_get(), Settings::default());
    assert_eq!(app.hub_token_set(Some("a b\n".into())).await.unwrap_err().code, ErrorCode::BadArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let second = std::panic::catch_unwind(|| drop(open(folder.path(), |_| {})));
    assert!(second.is_err());
    drop(app);
    open(folder.path(), |_| {});
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_is_where_the_flag_says_then_the_settings_then_the_environment() {
    let hub = fake_hub::FakeHub::start().unwrap();
    let there = hub.endpoint();
    // Nobody is there.
    let nowhere = "http://127.0.0.1:9";
    for (flag, saved, environment) in [
        (Some(&*there), Some(nowhere), Some(nowhere)),
        (None, Some(&*there), Some(nowhere)),
        (None, None, Some(&*there)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (app, _) = open(folder.path(), |config| {
            (config.endpoint, config.hf_endpoint) = (owned(flag), owned(environment));
        });
        app.settings_set(Settings { hub_endpoint: owned(saved), ..Settings::default() }).await.unwrap();
        let query = HubQuery { text: String::new(), sort: HubSort::Likes, cursor: None, parameters: false };
        app.hub_search(query).await.unwrap();
        let startup = app.startup();
        let shown = startup.hub_endpoint.or(startup.settings.hub_endpoint).unwrap_or(startup.hub_endpoint_default);
        assert_eq!(shown, there);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_was_quit_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (old, _) = open(folder.path(), |_| {});
    assert_eq!(try_own(folder.path()).err().unwrap().code, ErrorCode::Busy);
    let quit = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(old);
    });
    App::open_within(config(folder.path()).0, Duration::from_secs(60)).unwrap();
    quit.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_away_and_back_leaves_one_task_that_measures() {
    let folder = tempfile::tempdir().unwrap();
    let (app, events) = open(folder.path(), |_| {});
    for _ in 0..10 {
        app.monitor_start();
        app.monitor_stop();
    }
    app.monitor_start();
    app.monitor_start();
    // Those that were told to stop have had their time to.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    events.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    app.monitor_stop();
    let samples = events.lock().unwrap().iter().filter(|event| matches!(event, AppEvent::Monitor { .. })).count();
    assert!((1..=3).contains(&samples), "{samples} figures in two and a half seconds");
}
