//! Emergency notification: whom to tell, and what became of telling each of them (EM-77, EM-78;
//! compliance-systems 2.3, 2.4).
//!
//! What is queued is written in the same transaction as the record that caused it; what is sent is
//! written down before it is sent; nothing is marked delivered by anything but the answer of the
//! server that took it. The call itself never waits for any of this: the edge has sent its INVITE
//! before the control plane hears of it (K3).
//!
//! | module | what |
//! |---|---|
//! | [`contact`] | contacts, and the policy that the config document sets |
//! | [`queue`] | one row per notification, contact and method |
//! | [`work`] | claims what is due, writes down how it ended |
//! | [`history`] | what became of it all |
//! | [`message`] | what is said, per method |
//! | [`adapter`] | SMTP and webhook |
//! | [`deliver`] | the task that works off the queue |

pub mod adapter;
pub mod contact;
pub mod deliver;
pub mod history;
pub mod message;
pub mod meters;
pub mod queue;
pub mod work;

pub use contact::{CONTACTS_MAX, Contact, Method, Policy, contacts};
pub use deliver::Wake;
pub use history::{Delivery, Notification, deliveries};
pub use queue::State;

/// Kind of the audit event by which the data plane asks for a notification.
pub const KIND_NOTIFY: &str = "emergency.notify";
/// Kind of the event of an emergency call that no trunk took (K10).
pub const KIND_FAILED: &str = "emergency.failed";
/// Kind of the event of the end of an emergency call; with `abandoned` it is told (EM-54).
pub const KIND_ENDED: &str = "emergency.ended";
