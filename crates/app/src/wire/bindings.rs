//! The TypeScript mirror of the wire types. `cargo run -p app --example bindings` rewrites the checked-in file.

use super::*;
use ts_rs::{Config, TS};

/// The text of `ui/src/ipc/bindings.ts`.
pub fn typescript() -> String {
    // JSON has one kind of number: bytes and tokens are exact up to 2^53.
    let config = Config::default().with_large_int("number");
    let mut text = String::from("// Generated from crates/app/src/wire by `cargo xtask bindings`. Do not edit.\n");
    macro_rules! export {
        ($($name:ty),* $(,)?) => {
            $(text.push_str(&format!("\nexport {}\n", <$name as TS>::decl(&config)));)*
        };
    }
    export!(
        // settings
        Language,
        LanguageChoice,
        Theme,
        ContextPolicy,
        Sampling,
        GpuName,
        GpuChoice,
        ServerSettings,
        Settings,
        // errors
        ErrorCode,
        WireError,
        ServerState,
        // hardware
        GpuReason,
        Gpu,
        HardwareReport,
        Throttle,
        GpuProgram,
        GpuFigures,
        MonitorSample,
        // plans
        KvType,
        GpuLayers,
        LoadSettings,
        Fits,
        MemoryParts,
        GpuShare,
        Reason,
        Forecast,
        Plan,
        // models
        ModelSource,
        VerifiedFile,
        Verified,
        InstalledModel,
        Compiling,
        OpenedFile,
        LoadStage,
        ModelState,
        GpuUse,
        LoadedModel,
        RecoveryNotice,
        // Hub
        HubSort,
        HubQuery,
        HubModel,
        HubPage,
        Quality,
        HeaderFacts,
        QuantRow,
        HubModelPage,
        DownloadState,
        Download,
        // chats
        ChatSummary,
        AnswerFormat,
        Role,
        FinishReason,
        AnswerStats,
        ToolCall,
        Message,
        Chat,
        Turn,
        SendArgs,
        AnswerEvent,
        // all
        FileProgress,
        Startup,
        AppEvent,
    );
    text
}

/// Where the text is kept.
pub fn path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/src/ipc/bindings.ts")
}

#[cfg(test)]
mod tests {
    /// Compares with line ends as the checkout has them.
    #[test]
    fn checked_in_bindings_are_current() {
        let path = super::path();
        let found = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        let text = super::typescript();
        let differs = found.lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
        assert!(found == text, "{} is old: run `cargo xtask bindings` {differs:?}", path.display());
    }
}
