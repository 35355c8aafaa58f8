//! Which driver a shard gets.

use super::{Driver, Options};
use crate::probe::Missing;
use crate::{mmsg, uring};
use std::io;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring if it can be had, else mmsg.
    #[default]
    Auto,
    Uring,
    Mmsg,
}

/// A driver, and why it is not the better one.
pub struct Opened {
    pub driver: Box<dyn Driver>,
    /// What kept [`Choice::Auto`] from io_uring: to be logged once and shown in the metrics.
    pub fallback: Option<Missing>,
}

/// Opens a driver on the calling thread, which is then the only one that may use it.
///
/// # Errors
/// [`Choice::Uring`] cannot be had here ([`Missing`] inside), or epoll cannot.
pub fn open(choice: Choice, options: &Options) -> io::Result<Opened> {
    let fallback = match choice {
        Choice::Mmsg => None,
        Choice::Auto | Choice::Uring => match uring::open(options) {
            Ok(driver) => return Ok(Opened { driver: Box::new(driver), fallback: None }),
            Err(missing) if choice == Choice::Uring => return Err(io::Error::other(missing)),
            Err(missing) => Some(missing),
        },
    };
    Ok(Opened { driver: Box::new(mmsg::open(options)?), fallback })
}
