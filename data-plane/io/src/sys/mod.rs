//! System calls behind safe types: the only `unsafe` of the product. A type here keeps every memory
//! that the kernel may touch alive and in place for as long as it may; nothing outside this module
//! can break that.
#![allow(unsafe_code)]

pub(crate) mod bpf;
mod buffers;
pub mod epoll;
pub(crate) mod ethtool;
pub(crate) mod event;
mod memory;
pub mod mmsg;
pub(crate) mod napi;
pub mod packet;
pub(crate) mod ring;
mod segments;
pub(crate) mod shared;
pub(crate) mod socket;
pub mod thread;
pub(crate) mod xsk;
