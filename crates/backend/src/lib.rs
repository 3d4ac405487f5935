//! The device interface: buffers, operations, errors.
