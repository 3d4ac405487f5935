//! Use cases, wire types, error codes, settings, chats and the model folder. Knows no Tauri and no terminal.

pub mod wire;
