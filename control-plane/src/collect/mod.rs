//! The control plane's end of the link: nodes connect here, get the config in force, and hand in
//! their records, metrics and live views.

mod connection;
mod frames;
mod listen;
pub mod records;
pub mod registry;

pub use listen::{Links, TlsListener, listen_tls, listen_unix};
