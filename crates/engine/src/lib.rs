//! Load, placement, sessions, generation, cancel and recovery.
