//! [`rig`] with the public-key work of the product: tens of inputs a second.
#![no_main]

#[path = "rig.rs"]
mod rig;

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use ravelin_srtp::dtls::Identity;
use rig::Identities;

fn identities() -> &'static Identities {
    static MADE: OnceLock<Identities> = OnceLock::new();
    MADE.get_or_init(|| {
        let origin = std::time::Instant::now();
        std::array::from_fn(|_| Arc::new(Identity::generate(origin).expect("an identity")))
    })
}

fuzz_target!(|data: &[u8]| rig::run(identities(), data));
