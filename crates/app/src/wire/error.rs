use serde::Serialize;
use ts_rs::TS;

/// Why a command failed. The window has a sentence for each code, with what to do next, in each language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum ErrorCode {
    /// The file is not there any more.
    FileMissing,
    /// Not GGUF, or a GGUF that breaks its own rules.
    FileInvalid,
    /// Not a file of exported chats, or one that breaks its own rules.
    ArchiveInvalid,
    /// Shorter than its header says.
    FileTruncated,
    /// Its bytes are others than those that the Hub has.
    FileDamaged,
    /// Another program or a permission keeps it from us.
    FileAccess,
    /// It was opened, and its disk does not give all of it.
    FileUnreadable,
    /// A path that cannot be kept: not in Unicode, or longer than any.
    FileName,
    /// Downloads cannot be written to their folder: it is gone, not there now, or not ours to write.
    FolderAccess,
    /// An architecture, tokenizer or type that this version does not run.
    ModelUnsupported,
    /// The model's chat template makes no prompt of this conversation; the text says why.
    TemplateFailed,
    /// The draft model's tokens are not those of the model.
    DraftVocabulary,
    /// The draft model is not in the library any more.
    DraftMissing,
    /// Not enough RAM even with everything on disk that can be.
    RamFull,
    VramFull,
    DiskFull,
    /// The prompt alone is longer than the context.
    ContextFull,
    NoModelLoaded,
    /// Something is running that excludes this.
    Busy,
    Cancelled,
    /// No network, or the Hub does not answer.
    Offline,
    NeedsToken,
    /// The Hub does not know the token that it was sent.
    TokenRefused,
    NeedsTerms,
    NotFound,
    /// The server for other programs cannot listen on its port: another program has it, or the system keeps it.
    PortTaken,
    RateLimited,
    ChecksumMismatch,
    /// The Hub answered what nobody expects.
    HubAnswer,
    /// An argument out of its range: a bug in the window, or an old window.
    BadArgument,
    /// The schema of a prescribed answer is not JSON; the subject is "line:column".
    FormatNotJson,
    /// The schema or grammar of a prescribed answer is wrong; the text says where.
    FormatInvalid,
    /// It asks for more than can be followed.
    FormatTooComplex,
    /// The answer cannot go on in the form that is prescribed for it.
    FormatStuck,
    /// The data base of chats cannot be read or written.
    Storage,
    /// A bug of ours; the text says where.
    Internal,
}

/// An error as the window gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct WireError {
    pub code: ErrorCode,
    /// English, for logs and for codes that the window does not know.
    pub message: String,
    /// Bytes (or tokens, for `contextFull`) that were needed and that were there.
    pub needed: Option<u64>,
    pub available: Option<u64>,
    /// The name the sentence is about: a file, a repository, an architecture.
    pub subject: Option<String>,
    /// Seconds to wait, for `rateLimited`.
    pub retry_after: Option<u64>,
}
