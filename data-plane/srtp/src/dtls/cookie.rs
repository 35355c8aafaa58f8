//! The cookie exchange (RFC 6347 4.2.1), done here and without any state: the library takes the
//! first hello of anybody for the only one, and would answer the next client with a cookie for the
//! other.

use std::cell::Cell;

use aws_lc_rs::{constant_time, hmac};
use dimpl::{
    CryptoError, HashAlgorithm,
    crypto::{CryptoProvider, HmacProvider, aws_lc_rs::default_provider},
};

use super::guard::COOKIE_BYTES;

pub(super) type Cookie = [u8; COOKIE_BYTES];

/// The cookie of association `number`: one that was got elsewhere is of no use here. It is the same
/// for every client, for there is one: what is not from its address does not come this far. So what a
/// hello forged in its name has it told is what it would have been told anyway.
pub(super) fn make(secret: &hmac::Key, number: u64) -> Cookie {
    hmac::sign(secret, &number.to_be_bytes()).as_ref().try_into().unwrap_or_default()
}

pub(super) fn equal(one: &Cookie, other: &Cookie) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

thread_local! {
    /// The cookie that was checked here already, while the library is shown the hello.
    static CHECKED: Cell<Option<Cookie>> = const { Cell::new(None) };
}

/// Runs `show`, in which the library takes `cookie` for its own.
pub(super) fn with_checked<R>(cookie: &Cookie, show: impl FnOnce() -> R) -> R {
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            CHECKED.set(None);
        }
    }
    let _forget = Forget;
    CHECKED.set(Some(*cookie));
    show()
}

/// What the library computes HMACs with: those of its own, and our cookie while a hello is shown,
/// when it computes nothing else.
#[derive(Debug)]
struct Hmac;

impl HmacProvider for Hmac {
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; 32], CryptoError> {
        match CHECKED.get() {
            Some(cookie) => Ok(cookie),
            None => default_provider().hmac_provider.hmac_sha256(key, data),
        }
    }

    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        default_provider().hmac_provider.hmac(hash, key, data, out)
    }
}

static HMAC: Hmac = Hmac;

/// `of`, with our cookies.
pub(super) fn provider(of: CryptoProvider) -> CryptoProvider {
    CryptoProvider { hmac_provider: &HMAC, ..of }
}
