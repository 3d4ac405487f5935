//! Use cases, wire types, error codes, settings, chats and the model folder; knows no Tauri.
