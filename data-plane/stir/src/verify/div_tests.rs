use super::*;
use crate::cert::tn_auth_list::TnEntry;
use crate::limits::DIV_CHAIN_DEFAULT;
use crate::test_ca::{Ca, NOW, Wish, forge, trust};
use crate::tn::{Party, Tn};
use crate::verify::{Profile, verify};

/// A calls 1, which diverts to 2, which diverts to 3, ... Each provider has a certificate of its
/// own; provider `n` may sign for number `n` only.
struct Fixture {
    keys: Vec<String>,
    trust: Trust,
}

const CALLER: &str = "900";

fn tn(text: &str) -> Party {
    Tn::exact(text.as_bytes()).unwrap().into()
}

fn url(index: usize) -> String {
    format!("https://cr.example.com/{index}.pem")
}

fn params(index: usize, ppt: &str) -> String {
    format!(";info=<{}>;ppt={ppt}", url(index))
}

fn jose(index: usize, ppt: &str) -> String {
    format!(r#"{{"alg":"ES256","ppt":"{ppt}","typ":"passport","x5u":"{}"}}"#, url(index))
}

impl Fixture {
    fn new(providers: usize) -> Self {
        let root = Ca::root(&Wish::ca("root"));
        let leaves: Vec<_> = (0..providers)
            .map(|index| {
                let number = if index == 0 { CALLER.to_owned() } else { index.to_string() };
                let number = Tn::exact(number.as_bytes()).unwrap();
                root.issue(&Wish::leaf(vec![TnEntry::One(number)]))
            })
            .collect();
        let urls: Vec<String> = (0..providers).map(url).collect();
        let chains: Vec<(&str, &str)> =
            urls.iter().zip(&leaves).map(|(url, leaf)| (url.as_str(), leaf.pem.as_str())).collect();
        let trust = trust(&[&root], &chains);
        Self { keys: leaves.into_iter().map(|leaf| leaf.key_pem).collect(), trust }
    }

    fn sign(&self, index: usize, ppt: &str, payload: &str) -> Vec<u8> {
        forge(&self.keys[index], &jose(index, ppt), payload, &params(index, ppt))
    }

    fn shaken(&self, orig: &str, dest: &str, iat: u64) -> Vec<u8> {
        let payload = format!(
            r#"{{"attest":"A","dest":{{"tn":["{dest}"]}},"iat":{iat},"orig":{{"tn":"{orig}"}},"origid":"o"}}"#
        );
        self.sign(0, "shaken", &payload)
    }

    /// Signed by the provider of the diverting number.
    fn div(&self, orig: &str, div: usize, dest: &str, iat: u64) -> Vec<u8> {
        self.sign(div, "div", &div_claims(orig, div, dest, iat))
    }

    fn judge(&self, target: &str, values: &[Vec<u8>], profile: &Profile) -> Verdict {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let (orig, to, target) = ([tn(CALLER)], [tn("1")], [tn(target)]);
        verify(
            &self.trust,
            &VerifyRequest {
                identities: &values,
                orig: &orig,
                to: &to,
                request_uri: &target,
                now_unix: NOW,
                profile,
                ..VerifyRequest::default()
            },
        )
    }

    fn reason(&self, target: &str, values: &[Vec<u8>]) -> &'static str {
        self.judge(target, values, &Profile::DEFAULT).reason.label()
    }
}

fn div_claims(orig: &str, div: usize, dest: &str, iat: u64) -> String {
    format!(
        r#"{{"dest":{{"tn":["{dest}"]}},"div":{{"hi":"1.1","tn":"{div}"}},"iat":{iat},"orig":{{"tn":"{orig}"}}}}"#
    )
}

/// RFC 8946 4.2: complete chains, in any order of headers (ST-24).
#[test]
fn complete_chains() {
    let set = Fixture::new(4);
    let original = set.shaken(CALLER, "1", NOW);
    let first = set.div(CALLER, 1, "2", NOW);
    let second = set.div(CALLER, 2, "3", NOW);
    assert_eq!(set.reason("1", std::slice::from_ref(&original)), "valid");
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let all = [original.clone(), first.clone(), second.clone()];
    for order in orders {
        let values: Vec<_> = order.iter().map(|index| all[*index].clone()).collect();
        let verdict = set.judge("3", &values, &Profile::DEFAULT);
        assert_eq!(verdict.reason, Reason::ValidDiv);
        assert_eq!(verdict.attest, Some(crate::sign::Attest::A));
        assert_eq!(verdict.origid.as_deref(), Some("o"));
        assert_eq!(verdict.x5u.as_deref(), Some(url(0).as_str()));
    }
    assert_eq!(set.reason("2", &[original.clone(), first.clone()]), "valid_div");
    // Two chains of two tokens about the same call, one of them broken.
    let broken = set.shaken(CALLER, "1", NOW - 1000);
    assert_eq!(set.reason("2", &[original, first.clone(), broken]), "div_incomplete");
    // A chain of another caller beside ours.
    let others = [set.shaken("901", "1", NOW), set.div("901", 1, "2", NOW)];
    let ours = [set.shaken(CALLER, "1", NOW), first];
    assert_eq!(set.reason("2", &[others, ours].concat()), "valid_div");
}

/// Whatever is missing or wrong in a chain makes all of it invalid.
#[test]
fn broken_chains() {
    let set = Fixture::new(4);
    let original = set.shaken(CALLER, "1", NOW);
    let first = set.div(CALLER, 1, "2", NOW);
    let second = set.div(CALLER, 2, "3", NOW);
    let all = |changed: [&Vec<u8>; 3]| set.reason("3", &changed.map(Clone::clone));
    assert_eq!(all([&original, &first, &second]), "valid_div");
    assert_eq!(set.reason("3", &[original.clone(), second.clone()]), "div_incomplete");
    assert_eq!(set.reason("3", &[first.clone(), second.clone()]), "div_incomplete");
    assert_eq!(
        set.reason("4", &[original.clone(), first.clone(), second.clone()]),
        "div_incomplete"
    );
    // The original caller changed on the way, in one token or in all but one.
    assert_eq!(all([&original, &set.div("901", 1, "2", NOW), &second]), "div_orig_mismatch");
    let changed = [set.div("901", 1, "2", NOW), set.div("901", 2, "3", NOW)];
    assert_eq!(all([&original, &changed[0], &changed[1]]), "div_orig_mismatch");
    // All tokens agree, but the request's caller is another.
    let others = [set.shaken("901", "1", NOW), changed[0].clone(), changed[1].clone()];
    assert_eq!(set.reason("3", &others), "orig_mismatch");
    // Freshness: outermost, inner, and the profile for transfers.
    assert_eq!(all([&original, &first, &set.div(CALLER, 2, "3", NOW - 61)]), "iat_stale");
    let old = set.shaken(CALLER, "1", NOW - 7200);
    assert_eq!(all([&old, &first, &second]), "iat_stale");
    let transfer = Profile { window_inner_s: 3 * 3600, ..Profile::DEFAULT };
    let verdict = set.judge("3", &[old, first.clone(), second.clone()], &transfer);
    assert_eq!(verdict.reason, Reason::ValidDiv);
    // Signed by a provider that does not have the diverting number.
    let foreign = set.sign(3, "div", &div_claims(CALLER, 1, "2", NOW));
    assert_eq!(all([&original, &foreign, &second]), "tn_auth_list_scope");
    let mut forged = first.clone();
    let last_dot = forged.iter().enumerate().filter(|(_, octet)| **octet == b'.').nth(1).unwrap().0;
    forged[last_dot + 5] = if forged[last_dot + 5] == b'A' { b'B' } else { b'A' };
    assert_eq!(all([&original, &forged, &second]), "signature");
    // RFC 8946 3: no `opt` inside div; `div` is one identifier.
    let claims = div_claims(CALLER, 1, "2", NOW);
    let with_opt = set.sign(1, "div", &claims.replacen('{', r#"{"opt":"a.b.c","#, 1));
    assert_eq!(set.reason("2", &[with_opt]), "claim_opt");
    let two = set.sign(1, "div", &claims.replace(r#""hi":"1.1""#, r#""uri":"sip:a@b""#));
    assert_eq!(set.reason("2", &[two]), "claim_div");
    let none = set.sign(1, "div", &claims.replace("\"div\"", "\"dvi\""));
    assert_eq!(set.reason("2", &[none]), "claim_div");
}

/// ST-69: without a complete chain the other tokens decide only if the profile says so, or if one
/// of them is about the request's very target.
#[test]
fn incomplete_chain_profiles() {
    let set = Fixture::new(4);
    let original = set.shaken(CALLER, "1", NOW);
    let stray = set.div(CALLER, 3, "2", NOW);
    let values = [original.clone(), stray.clone()];
    assert_eq!(set.reason("2", &values), "div_incomplete");
    let ignore = Profile { div_incomplete_ignored: true, ..Profile::DEFAULT };
    assert_eq!(set.judge("2", &values, &ignore).reason, Reason::Valid);
    assert_eq!(set.reason("1", &values), "valid");
}

/// Bounds: length, cycles and forks end in a verdict, at once.
#[test]
fn length_cycles_and_forks() {
    let most = usize::from(DIV_CHAIN_DEFAULT);
    let set = Fixture::new(most + 2);
    let mut values = vec![set.shaken(CALLER, "1", NOW)];
    for index in 1..=most {
        values.push(set.div(CALLER, index, &(index + 1).to_string(), NOW));
    }
    let target = (most + 1).to_string();
    assert_eq!(set.reason(&target, &values), "valid_div");
    values.push(set.div(CALLER, most + 1, "77", NOW));
    assert_eq!(set.reason("77", &values), "div_too_long");
    let longer = Profile { div_max: 10, ..Profile::DEFAULT };
    assert_eq!(set.judge("77", &values, &longer).reason, Reason::ValidDiv);

    // A call that comes back: 1 -> 2 -> 1 is a chain, not a cycle.
    let back = [values[0].clone(), set.div(CALLER, 1, "2", NOW), set.div(CALLER, 2, "1", NOW)];
    assert_eq!(set.reason("1", &back), "valid_div");
    // A cycle without a beginning.
    assert_eq!(set.reason("1", &back[1..]), "div_incomplete");
    let own = set.div(CALLER, 1, "1", NOW);
    assert_eq!(set.reason("1", &[own]), "div_incomplete");
    // Two ways inwards.
    let fork = [
        values[0].clone(),
        set.div(CALLER, 1, "2", NOW),
        set.div(CALLER, 3, "2", NOW),
        set.div(CALLER, 2, "4", NOW),
    ];
    assert_eq!(set.reason("4", &fork), "div_incomplete");
}

/// RFC 8946 5: the same with the inner token inside.
#[test]
fn nested() {
    let set = Fixture::new(4);
    let token = |value: &[u8]| {
        let end = value.iter().position(|octet| *octet == b';').unwrap();
        String::from_utf8(value[..end].to_vec()).unwrap()
    };
    let wrap = |inner: &str, div: usize, dest: &str, orig: &str| {
        let claims = div_claims(orig, div, dest, NOW);
        let claims = claims.replacen(",\"orig\"", &format!(",\"opt\":\"{inner}\",\"orig\""), 1);
        set.sign(div, "div-o", &claims)
    };
    let original = token(&set.shaken(CALLER, "1", NOW));
    let first = wrap(&original, 1, "2", CALLER);
    assert_eq!(set.reason("2", std::slice::from_ref(&first)), "valid_div");
    let second = wrap(&token(&first), 2, "3", CALLER);
    assert_eq!(set.reason("3", std::slice::from_ref(&second)), "valid_div");
    assert_eq!(set.reason("4", &[second]), "dest_mismatch");
    assert_eq!(set.reason("2", &[wrap(&original, 2, "2", CALLER)]), "div_incomplete");
    let other = wrap(&token(&set.shaken("901", "1", NOW)), 1, "2", CALLER);
    assert_eq!(set.reason("2", &[other]), "div_orig_mismatch");
    let stale = wrap(&token(&set.shaken(CALLER, "1", NOW - 100)), 1, "2", CALLER);
    assert_eq!(set.reason("2", &[stale]), "iat_stale");
    let compact = wrap("..c2ln", 1, "2", CALLER);
    assert_eq!(set.reason("2", &[compact]), "compact_form");
    let div_inside = wrap(&token(&set.div(CALLER, 3, "1", NOW)), 1, "2", CALLER);
    assert_eq!(set.reason("2", &[div_inside]), "div_incomplete");
}

/// A div token that does not read leaves the target as uncovered as one that does not fit.
#[test]
fn a_broken_div_token_is_a_div_token() {
    let fixture = Fixture::new(2);
    let original = fixture.shaken(CALLER, "1", NOW);
    let sound = div_claims(CALLER, 1, "2", NOW);
    let payloads = [
        (sound.replace(r#""div""#, r#""dip""#), "claim_div"),
        (sound.replace(r#""iat""#, r#""opt":"x","iat""#), "claim_opt"),
        (sound.replace(r#""iat""#, r#""tai""#), "claim_iat"),
    ];
    let ignoring = Profile { div_incomplete_ignored: true, ..Profile::DEFAULT };
    for (payload, reason) in payloads {
        let broken = fixture.sign(1, "div", &payload);
        let both = [original.clone(), broken];
        assert_eq!(fixture.judge("2", &both, &Profile::DEFAULT).reason.label(), reason);
        assert_eq!(fixture.judge("2", &both, &ignoring).reason.label(), "valid");
        // The original token covers its own target, whatever else there is.
        assert_eq!(fixture.judge("1", &both, &Profile::DEFAULT).reason.label(), "valid");
    }
}
