//! Use cases, wire types, error codes, settings, chats and the model folder. Knows no Tauri and no terminal.
//!
//! [`App`] has one method for each command of the window. Nothing here reads the environment or keeps global state:
//! [`AppConfig`] says everything. Work that blocks runs on threads of its own; a panic in it becomes a [`wire::WireError`].

mod answer;
mod app;
mod archive;
mod catalog;
mod chats;
mod compiling;
mod discover;
mod disk_rates;
mod downloads;
mod drafts;
mod environment;
mod error;
mod files;
mod forms;
mod gpu;
mod gpu_choice;
mod gpu_rates;
mod gpu_seat;
mod library;
mod machine;
mod memory;
mod memory_files;
mod models;
mod opened;
mod plans;
mod prescribed;
mod progress;
mod prompt;
mod session;
mod settings;
mod store;
mod stream;
mod talk;
mod talk_file;
mod turns;
mod verify;
pub mod wire;

pub use answer::{Apart, Defaults, Step, Task, random, thinking};
pub use app::{App, AppConfig};
pub use discover::largest_file;
pub use drafts::Draft;
pub use environment::Environment;
pub use files::write_output;
pub use gpu::{gpus, imagined_gpu};
pub use machine::kernels;
pub use plans::plan;
pub use prescribed::Prescribed;
pub use prompt::{Called, Said};
pub use session::{Loading, Session};
pub use talk::AnswerSink;
pub use talk_file::{Resumed, TalkFile};
