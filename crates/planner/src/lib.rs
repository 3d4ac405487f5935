//! From header, hardware and wishes to a plan with reasons; pure.
