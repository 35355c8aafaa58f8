//! Opening sockets inside a network namespace.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::plan::Side;
use crate::exit::Failure;

/// The thread is inside a side's namespace until it leaves. Sockets stay where they were made.
#[must_use]
pub(super) struct Namespace {
    home: Option<File>,
}

impl Namespace {
    pub(super) fn enter(side: &Side) -> Result<Self, Failure> {
        let Some(path) = side.namespace() else { return Ok(Self { home: None }) };
        let open = |path: &std::path::Path| {
            File::open(path)
                .map_err(|error| Failure::cannot_run(format!("{}: {error}", path.display())))
        };
        let home = open("/proc/thread-self/ns/net".as_ref())?;
        join(&open(&path)?)?;
        Ok(Self { home: Some(home) })
    }

    pub(super) fn leave(self) -> Result<(), Failure> {
        self.home.as_ref().map_or(Ok(()), join)
    }
}

fn join(namespace: &File) -> Result<(), Failure> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
        |error| {
            Failure::cannot_run(format!("enter a network namespace: {error} (needs CAP_SYS_ADMIN)"))
        },
    )
}
