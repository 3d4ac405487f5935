//! What is said outside the window, whose dictionary is elsewhere: why there is none, and in the system's dialogs.

use app::wire::{ErrorCode, Language, WireError};

/// What happened and what to do, in the user's language.
pub fn cannot_start(error: &anyhow::Error, language: Language) -> String {
    let known = error.downcast_ref::<WireError>();
    let subject = known.and_then(|error| error.subject.as_deref()).unwrap_or_default();
    match (known.map(|error| error.code), language) {
        (Some(ErrorCode::Busy), Language::En) => {
            "Headroom is running already with this data folder. Go on in its window, or close it first.".into()
        }
        (Some(ErrorCode::Busy), Language::Ja) => {
            "Headroomはこのデータフォルダーですでに起動しています。そのウィンドウを使うか、先に終了してください。"
                .into()
        }
        (Some(ErrorCode::FileAccess), Language::En) => {
            format!("Headroom cannot write {subject}. Check the permissions of the folder, then start it again.")
        }
        (Some(ErrorCode::FileAccess), Language::Ja) => {
            format!("{subject}に書き込めません。フォルダーのアクセス権を確認してから、もう一度起動してください。")
        }
        (Some(ErrorCode::DiskFull), Language::En) => {
            "The disk is full. Free some space, then start Headroom again.".into()
        }
        (Some(ErrorCode::DiskFull), Language::Ja) => {
            "ディスクがいっぱいです。空きを作ってから、もう一度起動してください。".into()
        }
        (_, Language::En) => format!("Headroom cannot start: {error:#}"),
        (_, Language::Ja) => format!("Headroomを起動できません: {error:#}"),
    }
}

/// Next to a kind of files in a dialog.
pub fn all_files(language: Language) -> &'static str {
    match language {
        Language::En => "All files",
        Language::Ja => "すべてのファイル",
    }
}

/// The same where the system lacks what draws the window.
pub fn no_web_view(language: Language) -> String {
    match language {
        Language::En => "Headroom needs Microsoft Edge WebView2 to draw its window. Install the WebView2 Runtime from \
                         https://go.microsoft.com/fwlink/p/?LinkId=2124703, then start Headroom again."
            .into(),
        Language::Ja => "ウィンドウの表示にはMicrosoft Edge WebView2が必要です。\
                         https://go.microsoft.com/fwlink/p/?LinkId=2124703 からWebView2ランタイムをインストールして、\
                         もう一度起動してください。"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_window_away_is_said_with_what_to_do() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = anyhow::Error::new(WireError::file("/data/headroom.lock".as_ref(), &denied));
        let text = cannot_start(&error, Language::En);
        assert!(text.contains("/data/headroom.lock") && text.contains("permissions") && !text.contains("os error"));
        assert!(cannot_start(&error, Language::Ja).contains("アクセス権"));
        let other = anyhow::anyhow!("no screen");
        assert_eq!(cannot_start(&other, Language::En), "Headroom cannot start: no screen");
    }
}
