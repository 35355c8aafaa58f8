//! PASSporTs (RFC 8225): reading received tokens strictly, and writing our own byte by byte.

pub mod media_keys;
pub mod read;
pub mod write;

pub use media_keys::MediaKeys;
pub use read::{Claims, Jose, Passport, Type};
