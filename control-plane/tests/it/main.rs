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
mod postgres;
mod records;
mod soc2;
mod start;
mod support;
mod ui;
