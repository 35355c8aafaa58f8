//! Identity headers as they arrive, and every certificate-side parser, on arbitrary octets. Nothing
//! that the fuzzer makes up is signed by a trusted key, so nothing may pass.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ravelin_stir::{
    cert::{Certificate, TnAuthList, check_url, claim_constraints::ClaimConstraints, pem},
    outcome::Outcome,
    tn::{Party, UserIsTn, canonicalise, parties},
    trust::{Trust, TrustBuilder},
    verify::{VerifyRequest, verify},
};

/// The time of the tokens in `seeds/identity`.
const NOW_UNIX: u64 = 1_443_208_345;

fuzz_target!(|octets: &[u8]| {
    let trust = Trust::default();
    let values: Vec<&[u8]> = octets.split(|octet| *octet == b'\n').take(20).collect();
    let caller = parties(values.first().copied().unwrap_or_default(), UserIsTn::IfItLooksSo);
    let verdict = verify(
        &trust,
        &VerifyRequest {
            identities: &values,
            orig: &caller,
            to: &caller,
            request_uri: &caller,
            date: Some(NOW_UNIX),
            now_unix: NOW_UNIX,
            ..VerifyRequest::default()
        },
    );
    assert_ne!(verdict.outcome(), Outcome::Passed);

    // A canonical form is its own canonical form.
    for party in &caller {
        match party {
            Party::Tn(tn) => assert_eq!(canonicalise(tn.as_bytes()).as_ref(), Ok(tn)),
            Party::Uri(uri) => {
                assert!(parties(uri.as_bytes(), UserIsTn::WithUserPhone).contains(party));
            }
        }
    }

    let _ = check_url(octets);
    let _ = pem::blocks(octets);
    let _ = Certificate::from_der(octets);
    let _ = ClaimConstraints::from_der(octets, true);
    if let Some(list) = TnAuthList::from_der(octets) {
        assert!(list.to_der().len() <= octets.len());
    }
    let mut builder = TrustBuilder::default();
    let _ = builder.anchors_pem(octets);
    let _ = builder.crl_anchors_pem(octets);
    let _ = builder.crl(octets);
    builder.chain_for_any_url(octets);
    let (trust, _) = builder.build(NOW_UNIX);
    let _ = trust.chain("https://cr.example.com/a.pem", NOW_UNIX);
});
