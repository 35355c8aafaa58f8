//! The back-to-back user agent: one call, two dialogs, nothing of one side visible on the other.
//!
//! | Module | What |
//! |---|---|
//! | [`call`], [`leg`], [`dialog`], [`offer`] | the state of a call |
//! | [`invite`] | from a new INVITE to a call |
//! | [`attempt`], [`answer`] | the search for the callee, and what is answered to it |
//! | [`within`], [`outcome`] | requests inside the call, and their outcome |
//! | [`message`] | MESSAGE outside a call |
//! | [`silence`], [`failure`] | parties that send nothing, and that nothing can be sent to |
//! | [`release`] | refusals, hang-ups, the end |
//! | [`headers`], [`compose`], [`respond`], [`sdp`] | what goes out, and what of the other side is in it |
//! | [`cdr`], [`ladder`] | what is remembered |
//!
//! Decisions that the standards leave open:
//!
//! - An 18x that has reached the caller ends the search of an ordinary call: a callee was found.
//!   What each refusal means before that stands in [`crate::route`].
//! - Every branch of a fork is one early dialog toward the caller; the first 2xx wins, each other
//!   one is acknowledged and hung up.
//! - The callee's 2xx is acknowledged at once when the INVITE had the offer, and with the caller's
//!   ACK when it had not.
//! - A BYE is answered at once and sent on in a transaction of its own.
//! - 100rel is not offered on: Supported loses it, Require gets 420.
//! - Timers of RFC 4028 are negotiated end to end: their headers pass. What ends a call whose
//!   parties are both gone is the longest duration of `limits.rs`.
//! - P-Asserted-Identity and its like pass from any peer; they decide about attestation, records and
//!   verification only from a peer whose `trust` says so. In them, and in Diversion, History-Info,
//!   Referred-By and Reply-To, a host that is an address or an element of the other side is replaced.
//! - A branch of a fork that describes other media than the caller has heard of is another dialog to
//!   the caller: it gets a tag of its own. So does another attempt after early media.
//! - A 2xx without a description has the media that its branch described in an 18x of its own.
//! - Before the answer, INFO, MESSAGE and an UPDATE without offer reach the callee that rings; what
//!   would change a description is refused with 500 or 491, for provisionals are not reliable here.
//! - A body of a type that is not SDP passes; one without a type gets 415.
//! - A challenge (401, 407) of a trunk is never passed to the other side: 403 is.
//! - Streams that are not over UDP are refused by port 0; a description with no other gets 488.

pub(crate) mod answer;
pub(crate) mod attempt;
pub(crate) mod call;
pub(crate) mod capture;
pub(crate) mod cdr;
pub(crate) mod compose;
pub(crate) mod dialog;
pub(crate) mod failure;
pub(crate) mod headers;
pub(crate) mod hiding;
pub(crate) mod invite;
pub(crate) mod ladder;
pub(crate) mod leg;
pub(crate) mod message;
pub(crate) mod notice;
pub(crate) mod offer;
pub(crate) mod outcome;
pub(crate) mod release;
pub(crate) mod respond;
pub(crate) mod sdp;
pub(crate) mod silence;
pub(crate) mod starved;
pub(crate) mod verstat;
pub(crate) mod within;
