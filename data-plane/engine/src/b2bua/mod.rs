//! The back-to-back user agent: one call, two dialogs, nothing of one side visible on the other.
//!
//! | Module | What |
//! |---|---|
//! | [`call`], [`leg`], [`dialog`], [`offer`] | the state of a call |
//! | [`invite`] | from a new INVITE to a call |
//! | [`attempt`] | the search for the callee, answers to it |
//! | [`within`] | requests inside the call |
//! | [`message`] | MESSAGE outside a call |
//! | [`release`] | refusals, hang-ups, the end |
//! | [`headers`], [`compose`], [`respond`], [`sdp`] | what goes out, and what of the other side is in it |
//! | [`cdr`], [`ladder`] | what is remembered |

pub(crate) mod attempt;
pub(crate) mod call;
pub(crate) mod cdr;
pub(crate) mod compose;
pub(crate) mod dialog;
pub(crate) mod headers;
pub(crate) mod invite;
pub(crate) mod ladder;
pub(crate) mod leg;
pub(crate) mod message;
pub(crate) mod offer;
pub(crate) mod release;
pub(crate) mod respond;
pub(crate) mod sdp;
pub(crate) mod within;
