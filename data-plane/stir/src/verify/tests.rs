use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::batch::{SignBatch, sign_batch, verify_batch};
use crate::cert::tn_auth_list::TnEntry;
use crate::sign::{SignRequest, Signer};
use crate::test_ca::{Ca, NOW, Wish, X5U, forge, pair, trust};
use crate::tn::{Tn, UserIsTn, parties};

const FROM: &str = "+12155551212";
const TO: &str = "+12155551213";

fn tn(user: &str) -> Party {
    crate::tn::canonicalise(user.as_bytes()).unwrap().into()
}

fn request_at(iat: u64) -> SignRequest {
    SignRequest {
        attest: Attest::A,
        orig: tn(FROM),
        dest: smallvec![tn(TO)],
        iat,
        origid: crate::sign::uuid_v4([7; 16]),
    }
}

fn signed(signer: &Signer, request: &SignRequest) -> Vec<u8> {
    let mut value = Vec::new();
    signer.sign(request, &mut value).unwrap();
    value
}

/// The call that [`request_at`] is about.
fn judge(trust: &Trust, values: &[&[u8]]) -> Verdict {
    judge_call(trust, values, FROM, TO, NOW, &Profile::DEFAULT)
}

fn judge_call(
    trust: &Trust,
    values: &[&[u8]],
    from: &str,
    to: &str,
    now_unix: u64,
    profile: &Profile,
) -> Verdict {
    let uri = |user: &str| format!("sip:{user}@example.com;user=phone");
    let from = parties(uri(from).as_bytes(), UserIsTn::IfItLooksSo);
    let to = parties(uri(to).as_bytes(), UserIsTn::IfItLooksSo);
    verify(
        trust,
        &VerifyRequest {
            identities: values,
            orig: &from,
            to: &to,
            request_uri: &to,
            now_unix,
            profile,
            ..VerifyRequest::default()
        },
    )
}

fn reason(trust: &Trust, value: &[u8]) -> &'static str {
    judge(trust, &[value]).reason.label()
}

const JOSE: &str =
    r#"{"alg":"ES256","ppt":"shaken","typ":"passport","x5u":"https://cr.example.com/sp.pem"}"#;
const PARAMS: &str = ";info=<https://cr.example.com/sp.pem>;alg=ES256;ppt=shaken";

fn payload() -> String {
    format!(
        r#"{{"attest":"B","dest":{{"tn":["12155551213"]}},"iat":{NOW},"orig":{{"tn":"12155551212"}},"origid":"x"}}"#
    )
}

struct Forger {
    key_pem: String,
    trust: Trust,
}

impl Forger {
    fn new() -> Self {
        let root = Ca::root(&Wish::ca("root"));
        let leaf = root.issue(&Wish::spc());
        let trust = trust(&[&root], &[(X5U, &leaf.pem)]);
        Self { key_pem: leaf.key_pem, trust }
    }

    fn reason(&self, jose: &str, payload: &str, params: &str) -> &'static str {
        reason(&self.trust, &forge(&self.key_pem, jose, payload, params))
    }
}

#[test]
fn own_token_passes() {
    let (signer, trust) = pair();
    let value = signed(&signer, &request_at(NOW));
    let verdict = judge(&trust, &[&value]);
    assert_eq!(verdict.reason, Reason::Valid);
    assert_eq!(verdict.attest, Some(Attest::A));
    assert_eq!(verdict.origid.as_deref(), Some("07070707-0707-4707-8707-070707070707"));
    assert_eq!(verdict.x5u.as_deref(), Some(X5U));
    assert_eq!(verdict.spc.as_deref(), Some("1234"));
    assert_eq!(verdict.iat_skew_s, Some(0));
    // A proxy that changed the spelling of the numbers changed nothing.
    let verdict = judge_call(
        &trust,
        &[&value],
        "1(215)555-1212",
        "%2b1.215.555.1213",
        NOW,
        &Profile::DEFAULT,
    );
    assert_eq!(verdict.reason, Reason::Valid);
}

/// ST-34: both ends inclusive.
#[test]
fn freshness_window() {
    let (signer, trust) = pair();
    for (iat, want) in [
        (NOW - 61, "iat_stale"),
        (NOW - 60, "valid"),
        (NOW + 60, "valid"),
        (NOW + 61, "iat_future"),
        (NOW + 86_400 * 115, "iat_future"),
    ] {
        assert_eq!(reason(&trust, &signed(&signer, &request_at(iat))), want, "{iat}");
    }
    let wide = Profile { window_past_s: 300, ..Profile::DEFAULT };
    let value = signed(&signer, &request_at(NOW - 300));
    assert_eq!(judge_call(&trust, &[&value], FROM, TO, NOW, &wide).reason, Reason::Valid);
}

/// ST-35, ST-36: Date decides nothing by default, and never saves a stale token.
#[test]
fn date_header() {
    let (signer, trust) = pair();
    let judge = |iat, date, date_strict| {
        let value = signed(&signer, &request_at(iat));
        let profile = Profile { date_strict, ..Profile::DEFAULT };
        let (from, to) = ([tn(FROM)], [tn(TO)]);
        let request = VerifyRequest {
            identities: &[&value],
            orig: &from,
            to: &to,
            date,
            now_unix: NOW,
            profile: &profile,
            ..VerifyRequest::default()
        };
        verify(&trust, &request).reason
    };
    assert_eq!(judge(NOW, Some(NOW - 3600), false), Reason::Valid);
    assert_eq!(judge(NOW, Some(NOW - 3600), true), Reason::DateMismatch);
    assert_eq!(judge(NOW, Some(NOW - 59), true), Reason::Valid);
    assert_eq!(judge(NOW, None, true), Reason::Valid);
    assert_eq!(judge(NOW - 61, Some(NOW), false), Reason::IatStale);
}

/// ST-17 to ST-19.
#[test]
fn parties_are_compared() {
    let (signer, trust) = pair();
    let value = signed(&signer, &request_at(NOW));
    let judge =
        |from, to| judge_call(&trust, &[&value], from, to, NOW, &Profile::DEFAULT).reason.label();
    assert_eq!(judge("+12155551299", TO), "orig_mismatch");
    assert_eq!(judge(FROM, "+12155551299"), "dest_mismatch");
    assert_eq!(judge("alice", TO), "orig_mismatch");
    assert_eq!(judge("anonymous", TO), "orig_anonymous");

    let (from, to, other) = ([tn(FROM)], [tn(TO)], [tn("1")]);
    let judge = |dest_match, to: &[Party], request_uri: &[Party]| {
        let profile = Profile { dest_match, ..Profile::DEFAULT };
        let request = VerifyRequest {
            identities: &[&value],
            orig: &from,
            to,
            request_uri,
            now_unix: NOW,
            profile: &profile,
            ..VerifyRequest::default()
        };
        verify(&trust, &request).outcome() == Outcome::Passed
    };
    assert!(judge(DestMatch::ToOrRequestUri, &to, &other));
    assert!(judge(DestMatch::ToOrRequestUri, &other, &to));
    assert!(!judge(DestMatch::ToOrRequestUri, &other, &other));
    assert!(!judge(DestMatch::RequestUri, &to, &other));
    assert!(!judge(DestMatch::To, &other, &to));
}

/// Every header and claim that is not as it must be, by its reason (ST-6 to ST-8, ST-22 to ST-29).
#[test]
fn defects() {
    let forger = Forger::new();
    assert_eq!(forger.reason(JOSE, &payload(), PARAMS), "valid");

    let jose = |from: &str, to: &str| {
        assert!(JOSE.contains(from));
        forger.reason(&JOSE.replace(from, to), &payload(), PARAMS)
    };
    assert_eq!(jose("ES256", "RS256"), "alg_unsupported");
    assert_eq!(jose("ES256", "none"), "alg_unsupported");
    assert_eq!(jose("ES256", "es256"), "alg_unsupported");
    assert_eq!(jose(r#""alg":"ES256","#, ""), "alg_unsupported");
    assert_eq!(jose(r#""typ":"passport""#, r#""typ":"JWT""#), "typ_not_passport");
    assert_eq!(jose(r#""typ":"passport","#, ""), "typ_not_passport");
    assert_eq!(jose("{", r#"{"crit":["x"],"#), "jose_critical");
    assert_eq!(jose("{", r#"{"jku":"https://evil.example/k","#), "jose_member");
    assert_eq!(jose("{", r#"{"alg":"ES256","#), "jose_syntax");
    assert_eq!(jose("}", ""), "jose_syntax");
    assert_eq!(jose(r#""ppt":"shaken","#, ""), "ppt_mismatch");
    assert_eq!(jose(r#""shaken""#, r#""div""#), "ppt_mismatch");
    assert_eq!(jose("https://cr", "http://cr"), "info_not_x5u");
    assert_eq!(jose("sp.pem", "SP.pem"), "info_not_x5u");

    let params = |from: &str, to: &str| {
        assert!(PARAMS.contains(from));
        forger.reason(JOSE, &payload(), &PARAMS.replace(from, to))
    };
    assert_eq!(params("alg=ES256", "alg=RS256"), "alg_param");
    assert_eq!(params(";alg=ES256", ""), "valid");
    assert_eq!(params("ppt=shaken", "ppt=\"shaken\""), "valid");
    assert_eq!(params("ppt=shaken", "ppt=other"), "ppt_unsupported");
    assert_eq!(params("ppt=shaken", "ppt=div"), "ppt_mismatch");
    assert_eq!(params(";ppt=shaken", ""), "valid");
    assert_eq!(params("info=", "inf="), "info_missing");
    assert_eq!(
        params("<https://cr.example.com/sp.pem>", "https://cr.example.com/sp.pem"),
        "info_syntax"
    );
    assert_eq!(forger.reason(JOSE, &payload(), ""), "info_missing");
    let strict = Profile { ppt_param_required: true, ..Profile::DEFAULT };
    let value = forge(&forger.key_pem, JOSE, &payload(), &PARAMS.replace(";ppt=shaken", ""));
    let verdict = judge_call(&forger.trust, &[&value], FROM, TO, NOW, &strict);
    assert_eq!(verdict.reason, Reason::PptParamMissing);

    let both = |url: &str| {
        let jose = JOSE.replace("https://cr.example.com/sp.pem", url);
        let params = PARAMS.replace("https://cr.example.com/sp.pem", url);
        forger.reason(&jose, &payload(), &params)
    };
    assert_eq!(both("http://cr.example.com/sp.pem"), "info_not_https");
    assert_eq!(both("https://127.0.0.1/sp.pem"), "info_policy");
    assert_eq!(both("https://cr.example.com/other.pem"), "certificate_unavailable");

    let claims = |from: &str, to: &str| {
        assert!(payload().contains(from));
        forger.reason(JOSE, &payload().replace(from, to), PARAMS)
    };
    assert_eq!(claims(r#""B""#, r#""D""#), "claim_attest");
    assert_eq!(claims(r#""B""#, r#""a""#), "claim_attest");
    assert_eq!(claims(r#""attest":"B","#, ""), "claim_attest");
    assert_eq!(claims(r#","origid":"x""#, ""), "claim_origid");
    assert_eq!(claims(r#""origid":"x""#, r#""origid":1"#), "claim_origid");
    let iat = format!("{NOW}");
    for bad in [format!("\"{NOW}\""), format!("{NOW}.0"), "-1".into(), "true".into(), "1e9".into()]
    {
        assert_eq!(claims(&iat, &bad), "claim_iat", "{bad}");
    }
    assert_eq!(claims(r#"["12155551213"]"#, r#""12155551213""#), "claim_dest");
    assert_eq!(claims(r#"["12155551213"]"#, "[]"), "claim_dest");
    assert_eq!(claims(r#"["12155551213"]"#, r#"["12155551213",1]"#), "claim_dest");
    assert_eq!(claims(r#"["12155551213"]"#, r#"["1","12155551213"]"#), "valid");
    assert_eq!(claims(r#"{"tn":"12155551212"}"#, r#"{"tn":["12155551212"]}"#), "claim_orig");
    assert_eq!(
        claims(r#"{"tn":"12155551212"}"#, r#"{"tn":"12155551212","uri":"sip:a@b"}"#),
        "claim_orig"
    );
    assert_eq!(claims(r#"{"tn":"12155551212"}"#, "{}"), "claim_orig");
    assert_eq!(claims("{\"attest", "{\"iat\":1,\"attest"), "payload_syntax");
    assert_eq!(claims("\"x\"}", "\"x\""), "payload_syntax");
    let long = format!("\"origid\":\"{}\"", "x".repeat(limits::PAYLOAD_BYTES_MAX));
    assert_eq!(claims(r#""origid":"x""#, &long), "payload_too_long");
    // ST-15, ST-27, ST-28: understood, if not well written.
    assert_eq!(claims(r#""tn":"12155551212""#, r#""tn" : "+1-215-555-1212""#), "valid");
    assert_eq!(claims("{\"attest", "{ \"zzz\":{\"a\":[1]},\n\"attest"), "valid");
}

/// The signature's form and value (ST-7).
#[test]
fn signatures() {
    let forger = Forger::new();
    let good = forge(&forger.key_pem, JOSE, &payload(), "");
    let dot = good.iter().rposition(|octet| *octet == b'.').unwrap();
    let with = |signature: &[u8]| {
        let mut value = good[..=dot].to_vec();
        crate::base64::encode_url(signature, &mut value);
        value.extend_from_slice(PARAMS.as_bytes());
        reason(&forger.trust, &value)
    };
    let mut octets = Vec::new();
    crate::base64::decode_url(&good[dot + 1..], &mut octets).unwrap();
    assert_eq!(with(&octets), "valid");
    assert_eq!(with(&octets[..63]), "signature_form");
    assert_eq!(with(&[0; 65]), "signature_form");
    assert_eq!(with(&[]), "signature_form");
    assert_eq!(with(&[0; 64]), "signature");
    assert_eq!(with(&[0xff; 64]), "signature");
    let mut zero_s = octets.clone();
    zero_s[32..].fill(0);
    assert_eq!(with(&zero_s), "signature");
    // The group order minus s is as good a signature as s: both must pass.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut borrow = 0i16;
    for index in (0..32).rev() {
        let difference = i16::from(ORDER[index]) - i16::from(octets[32 + index]) - borrow;
        borrow = i16::from(difference < 0);
        octets[32 + index] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    assert_eq!(with(&octets), "valid");
    // Another key.
    let (_, other) = pair();
    let mut value = good.clone();
    value.extend_from_slice(PARAMS.as_bytes());
    assert_eq!(reason(&other, &value), "signature");
}

/// ST-60, RFC 8224 6.2.1 and 6.2.2.
#[test]
fn several_identities() {
    let (signer, trust) = pair();
    let good = signed(&signer, &request_at(NOW));
    let stale = signed(&signer, &request_at(NOW - 1000));
    let other_ppt: &[u8] = b"a.b.c;info=<https://cr.example.com/x>;ppt=zzz";
    let broken: &[u8] = b"a.b.c;info=<https://cr.example.com/x>;ppt=shaken";
    let unknown = {
        let root = Ca::root(&Wish::ca("other"));
        let leaf = root.issue(&Wish::spc());
        let url = "https://cr.example.com/unknown.pem";
        let signer = Signer::load(leaf.pem.as_bytes(), leaf.key_pem.as_bytes(), url, NOW).unwrap();
        signed(&signer, &request_at(NOW))
    };
    let cases: &[(&[&[u8]], Outcome)] = &[
        (&[], Outcome::NoneAbsent),
        (&[b""], Outcome::BadToken),
        (&[other_ppt], Outcome::NonePpt),
        (&[broken, &good], Outcome::Passed),
        (&[&good, broken], Outcome::Passed),
        (&[&stale, other_ppt], Outcome::Stale),
        (&[broken, &stale], Outcome::Stale),
        (&[broken, other_ppt], Outcome::BadToken),
        (&[&unknown], Outcome::NoneFetch),
        (&[&unknown, broken], Outcome::NoneFetch),
        (&[&unknown, &good], Outcome::Passed),
    ];
    for (values, want) in cases {
        assert_eq!(judge(&trust, values).outcome(), *want);
        let joined = values.join(b", ".as_slice());
        if !joined.is_empty() {
            assert_eq!(judge(&trust, &[&joined]).outcome(), *want);
        }
    }
    let many: Vec<Vec<u8>> = (0..=limits::IDENTITY_COUNT_MAX)
        .map(|index| format!("a.b.c{index}").into_bytes())
        .collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    assert_eq!(judge(&trust, &many).reason, Reason::IdentityTooMany);
    let big = vec![b'a'; limits::IDENTITY_TOTAL_BYTES_MAX + 1];
    assert_eq!(judge(&trust, &[&big]).reason, Reason::IdentityTooLong);
    // Sixteen copies of one header are one header.
    assert_eq!(judge(&trust, &[good.as_slice(); 17]).reason, Reason::Valid);
}

/// ST-29: compact form of a base PASSporT, from From, To and Date.
#[test]
fn compact_form() {
    let forger = Forger::new();
    let jose = r#"{"alg":"ES256","typ":"passport","x5u":"https://cr.example.com/sp.pem"}"#;
    let payload =
        format!(r#"{{"dest":{{"tn":["12155551213"]}},"iat":{NOW},"orig":{{"tn":"12155551212"}}}}"#);
    let params = ";info=<https://cr.example.com/sp.pem>";
    assert_eq!(forger.reason(jose, &payload, params), "valid");
    let full = forge(&forger.key_pem, jose, &payload, "");
    let dot = full.iter().rposition(|octet| *octet == b'.').unwrap();
    let compact = |params: &str, date, from: &str| {
        let mut value = b"..".to_vec();
        value.extend_from_slice(&full[dot + 1..]);
        value.extend_from_slice(params.as_bytes());
        let (from, to) = ([tn(from)], [tn(TO)]);
        let request = VerifyRequest {
            identities: &[&value],
            orig: &from,
            to: &to,
            date,
            now_unix: NOW + 5,
            ..VerifyRequest::default()
        };
        verify(&forger.trust, &request).reason.label()
    };
    assert_eq!(compact(params, Some(NOW), FROM), "valid");
    assert_eq!(compact(params, Some(NOW + 1), FROM), "compact_mismatch");
    assert_eq!(compact(params, Some(NOW), "+12155551214"), "compact_mismatch");
    assert_eq!(compact(params, None, FROM), "compact_mismatch");
    assert_eq!(compact(params, Some(NOW - 100), FROM), "iat_stale");
    assert_eq!(compact(&format!("{params};ppt=shaken"), Some(NOW), FROM), "compact_form");
}

/// Numbers that the certificate is for (ST-41), and claims (ST-40).
#[test]
fn scope_and_constraints() {
    let root = Ca::root(&Wish::ca("root"));
    let only = |entry| {
        let leaf = root.issue(&Wish::leaf(vec![entry]));
        let trust = trust(&[&root], &[(X5U, &leaf.pem)]);
        reason(&trust, &forge(&leaf.key_pem, JOSE, &payload(), PARAMS))
    };
    assert_eq!(only(TnEntry::One(Tn::exact(b"12155551212").unwrap())), "valid");
    assert_eq!(only(TnEntry::One(Tn::exact(b"12155551213").unwrap())), "tn_auth_list_scope");

    // mustExclude rcd (RFC 9118).
    let constraint = b"\x30\x09\xa2\x07\x30\x05\x16\x03rcd".to_vec();
    let mut wish = Wish::spc();
    wish.extensions.push((vec![1, 3, 6, 1, 5, 5, 7, 1, 33], constraint.clone(), false));
    let leaf = root.issue(&wish);
    let known = trust(&[&root], &[(X5U, &leaf.pem)]);
    let judge = |payload: &str| reason(&known, &forge(&leaf.key_pem, JOSE, payload, PARAMS));
    assert_eq!(judge(&payload()), "valid");
    assert_eq!(judge(&payload().replacen('{', "{\"rcd\":{},", 1)), "claim_constraint");
    // Both kinds in one certificate: 437.
    wish.extensions.push((
        vec![1, 3, 6, 1, 5, 5, 7, 1, 27],
        b"\x30\x09\xa0\x07\x30\x05\x16\x03rcd".to_vec(),
        false,
    ));
    let leaf = root.issue(&wish);
    let known = trust(&[&root], &[(X5U, &leaf.pem)]);
    let verdict = super::verify(
        &known,
        &VerifyRequest {
            identities: &[&forge(&leaf.key_pem, JOSE, &payload(), PARAMS)],
            orig: &[tn(FROM)],
            to: &[tn(TO)],
            now_unix: NOW,
            ..VerifyRequest::default()
        },
    );
    assert_eq!((verdict.reason, verdict.cause()), (Reason::ClaimConstraintsMalformed, Some(437)));
}

/// ST-83: a batch is its members, whatever their order and mixture.
#[test]
fn batch_equals_single() {
    let (signer, trust) = pair();
    let mut requests: Vec<SignRequest> = (0..40).map(|age| request_at(NOW - 30 - age)).collect();
    requests[3].dest.clear();
    requests[9].iat = 0;
    let mut batch = SignBatch::default();
    for size in [1, 8, 32, 40] {
        sign_batch(&signer, &requests[..size], &mut batch);
        let mut values: Vec<Vec<u8>> = Vec::new();
        for (result, request) in batch.iter().zip(&requests) {
            // ECDSA draws a nonce, so values differ but for what is signed.
            let signed_part = |value: &[u8]| value[..value.len() - PARAMS.len() - 87].to_vec();
            let mut single = Vec::new();
            let alone = signer.sign(request, &mut single);
            assert_eq!(result.map(signed_part), alone.map(|()| signed_part(&single)));
            values.push(result.unwrap_or(b"broken").to_vec());
        }
        assert_eq!(values.len(), size);
        values.reverse();
        let identities: Vec<[&[u8]; 1]> = values.iter().map(|value| [value.as_slice()]).collect();
        let (from, to) = ([tn(FROM)], [tn(TO)]);
        let request = |identities| VerifyRequest {
            identities,
            orig: &from,
            to: &to,
            now_unix: NOW,
            ..VerifyRequest::default()
        };
        let mut verdicts = vec![];
        verify_batch(&trust, identities.iter().map(|one| request(one)), &mut verdicts);
        let singles: Vec<_> = identities.iter().map(|one| verify(&trust, &request(one))).collect();
        assert_eq!(verdicts, singles);
        assert!(size < 10 || verdicts.iter().any(|verdict| verdict.reason == Reason::IatStale));
    }
}

/// One octet changed anywhere in token or `info` never passes.
#[test]
fn every_flip_fails() {
    let (signer, trust) = pair();
    let value = signed(&signer, &request_at(NOW));
    // The rest are parameters whose names may be unknown: `;alx=ES256` changes nothing.
    let end = value.len() - ";alg=ES256;ppt=shaken".len();
    for at in 0..end {
        for change in [0x01, 0x20, 0x80] {
            let mut changed = value.clone();
            changed[at] ^= change;
            let verdict = judge(&trust, &[&changed]);
            let info_name = (value.len() - PARAMS.len() + 1)..(value.len() - PARAMS.len() + 5);
            // Parameter names are not case sensitive.
            if info_name.contains(&at) && change == 0x20 {
                continue;
            }
            // Letters of the URL's scheme and host differ in case only: still not equal to x5u.
            assert_ne!(verdict.outcome(), Outcome::Passed, "octet {at} ^ {change:#x}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn total(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        let trust = Trust::default();
        prop_assert_ne!(judge(&trust, &[&value]).outcome(), Outcome::Passed);
    }

    /// Random JSON-like payloads, properly signed: only the reader stands between them and a pass.
    #[test]
    fn total_on_claims(payload in "[{}\\[\\]:,\"0-9atestdoriguni .\\\\]{0,80}") {
        thread_local!(static FORGER: Forger = Forger::new());
        let got = FORGER.with(|forger| forger.reason(JOSE, &payload, PARAMS));
        prop_assert_ne!(got, "valid");
    }
}

/// A signature of another length: the certificate is to blame if its key is not on P-256 (ST-12).
#[test]
fn a_wrong_key_is_named_before_the_form_of_its_signature() {
    let forger = Forger::new();
    let mut value = forge(&forger.key_pem, JOSE, &payload(), "");
    let dot = value.iter().rposition(|octet| *octet == b'.').unwrap();
    value.truncate(dot + 1);
    crate::base64::encode_url(&[7; 96], &mut value);
    value.extend_from_slice(PARAMS.as_bytes());
    assert_eq!(reason(&forger.trust, &value), "signature_form");
    assert_eq!(reason(&Trust::default(), &value), "signature_form");
    let root = Ca::root(&Wish::ca("root"));
    let other = root.issue(&Wish { algorithm: &rcgen::PKCS_ECDSA_P384_SHA384, ..Wish::spc() });
    assert_eq!(reason(&trust(&[&root], &[(X5U, &other.pem)]), &value), "key_type");
}

/// `mky` and the fingerprints in the SDP (ST-73): base tokens list them all, others all or none.
#[test]
fn media_keys() {
    let forger = Forger::new();
    let base = JOSE.replace(r#""ppt":"shaken","#, "");
    let offered = MediaKeys::of_sdp([&b"sha-256 4A:AD:B9"[..]].into_iter());
    let other = MediaKeys::of_sdp([&b"sha-256 4A:AD:B8"[..]].into_iter());
    let none = MediaKeys::default();
    let claimed = r#""mky":[{"alg":"sha-256","dig":"4AADB9"}],"orig""#;
    let judge = |jose: &str, claim: &str, keys: Option<&MediaKeys>| {
        let ppt = if jose == JOSE { PARAMS } else { PARAMS.trim_end_matches(";ppt=shaken") };
        let payload = payload().replace(r#""orig""#, claim);
        let value = forge(&forger.key_pem, jose, &payload, ppt);
        let (from, to) = ([tn(FROM)], [tn(TO)]);
        let request = VerifyRequest {
            identities: &[&value],
            orig: &from,
            to: &to,
            request_uri: &to,
            media_keys: keys,
            now_unix: NOW,
            ..VerifyRequest::default()
        };
        verify(&forger.trust, &request).reason.label()
    };
    let absent = r#""orig""#;
    for (jose, claim, keys, reason) in [
        (JOSE, absent, Some(&offered), "valid"),
        (JOSE, claimed, Some(&offered), "valid"),
        (JOSE, claimed, Some(&other), "media_key_mismatch"),
        (JOSE, claimed, Some(&none), "media_key_mismatch"),
        (JOSE, claimed, None, "valid"),
        (&base, claimed, Some(&offered), "valid"),
        (&base, claimed, Some(&other), "media_key_mismatch"),
        (&base, absent, Some(&offered), "media_key_mismatch"),
        (&base, absent, Some(&none), "valid"),
        (JOSE, r#""mky":{},"orig""#, None, "claim_mky"),
        (JOSE, r#""mky":[],"orig""#, Some(&none), "claim_mky"),
    ] {
        assert_eq!(judge(jose, claim, keys), reason, "{jose} {claim}");
    }
}

/// A compact form stands for a token with the fingerprints of the request (RFC 8225 7).
#[test]
fn media_keys_of_a_compact_form() {
    let forger = Forger::new();
    let base = JOSE.replace(r#""ppt":"shaken","#, "");
    let payload = format!(
        r#"{{"dest":{{"tn":["12155551213"]}},"iat":{NOW},"mky":[{{"alg":"sha-256","dig":"4AADB9"}}],"orig":{{"tn":"12155551212"}}}}"#
    );
    let full = forge(&forger.key_pem, &base, &payload, PARAMS.trim_end_matches(";ppt=shaken"));
    let dot = full.iter().position(|octet| *octet == b'.').unwrap();
    let second = dot + 1 + full[dot + 1..].iter().position(|octet| *octet == b'.').unwrap();
    let compact = [b".".as_slice(), &full[second..]].concat();
    let judge = |fingerprint: &'static [u8]| {
        let keys = MediaKeys::of_sdp([fingerprint].into_iter());
        let (from, to) = ([tn(FROM)], [tn(TO)]);
        let request = VerifyRequest {
            identities: &[&compact],
            orig: &from,
            to: &to,
            date: Some(NOW),
            media_keys: Some(&keys),
            now_unix: NOW,
            ..VerifyRequest::default()
        };
        verify(&forger.trust, &request).reason.label()
    };
    assert_eq!(judge(b"sha-256 4A:AD:B9"), "valid");
    assert_eq!(judge(b"sha-256 4A:AD:B8"), "compact_mismatch");
}
