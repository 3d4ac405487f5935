//! Logits to token: seeded and pure.
