//! The control plane through its real sockets: HTTP, the link's Unix socket and its TLS listener.

mod access;
mod audit_package;
mod config;
mod e911;
mod emergency;
mod karis;
mod link;
mod metrics;
mod nomadic;
mod notify;
mod postgres;
mod records;
mod sinks;
mod soc2;
mod start;
mod stir;
mod support;
mod ui;
