//! The media path from outside: the binary, its sockets, and peers that share no code with it. Each
//! test has a place of its own in 127.14.0.0/16, or namespaces of its own.

mod af_xdp;
mod base64;
mod browser;
mod call;
mod counts;
mod dtls;
mod edge;
mod failure;
mod forget;
mod help;
mod long;
mod namespaces;
mod one_owner;
mod pool;
mod reborn;
mod reuse;
mod rfc3550;
mod sdes;
mod spray;
mod strangers;
mod table;
mod timeout;
mod voice;
mod waited;
