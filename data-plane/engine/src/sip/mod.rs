//! The SIP layers between the datagram and the dialogs: where answers go, transactions, and answers
//! without state.

pub mod reply;
pub mod stateless;
pub mod transaction;
