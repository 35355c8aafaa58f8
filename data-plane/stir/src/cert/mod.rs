//! STI certificates (RFC 8226, RFC 9060, RFC 9118): reading, the numbers and claims that they are
//! good for, path validation, revocation, and which URLs they may come from. All of this runs off
//! the call path; a call only meets the resulting [`path::VerifiedChain`].

pub mod certificate;
pub mod claim_constraints;
pub mod crl;
mod der;
pub mod path;
pub mod pem;
pub mod tn_auth_list;
pub mod url;

pub use certificate::Certificate;
pub use path::VerifiedChain;
pub use tn_auth_list::{TnAuthList, TnEntry};
pub use url::check_url;
