//! SIP (RFC 3261 and the extensions an SBC meets): checked views over a datagram, and the writer.
//!
//! [`Message::parse`] either refuses with a [`ParseError`] or gives a message whose framing is
//! consistent, whose mandatory headers are there once, and whose routing headers are well formed.
//! Everything else is looked at lazily.

mod addr;
pub(crate) mod chars;
mod content;
mod date;
mod error;
mod fields;
mod lines;
mod message;
mod name;
mod params;
mod repair;
mod salvage;
mod stream;
pub mod uri;
mod values;
mod via;
mod writer;

pub use addr::NameAddr;
pub use chars::is_one_line;
pub use content::{ContentType, Part, Parts};
pub use date::{parse_date, write_date};
pub use error::{ErrorKind, ParseError};
pub use fields::{
    CSeq, RAck, Reason, RetryAfter, SessionExpires, Warning, decimal, delta_seconds, tokens,
};
pub(crate) use fields::{push_decimal, push_ip};
pub use message::{Framing, Header, Message, StartLine};
pub use name::{HeaderName, Method};
pub use params::{Params, unquote};
pub use repair::repair;
pub use salvage::{Salvage, salvage};
pub use stream::{Frame, FramingError, StreamFramer};
pub use uri::{Host, Scheme, Uri};
pub use values::{Values, split_commas};
pub use via::{Transport, Via, write_via_with_source};
pub use writer::{WriteError, Writer};
