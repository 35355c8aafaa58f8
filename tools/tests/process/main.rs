//! The binary as its users have it: real processes, real sockets, real files. Each test has its own
//! loopback addresses in 127.4.0.0/16, or in 127.9 to 127.14, and its own data directory.

mod cli;
mod compliance;
mod demo;
mod edge;
mod failover;
mod figures;
mod link;
mod media;
mod nodes;
mod notify;
mod peer;
mod ports;
mod silence;
mod stir;
mod stop;
mod support;
mod survive;
mod survive_media;
