//! Use cases, wire types, error codes, settings, chats and the model folder. Knows no Tauri and no terminal.

mod chats;
mod error;
mod files;
mod library;
mod settings;
mod store;
pub mod wire;
