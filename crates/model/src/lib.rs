//! Architecture descriptions from GGUF headers and the byte layout that follows from them; pure.
