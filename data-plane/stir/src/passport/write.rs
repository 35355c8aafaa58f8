//! The writer: deterministic JSON (RFC 8225 9), byte for byte (ST-1 to ST-5). Names are in order of
//! their code points, values of `tn` and `uri` arrays are sorted, nothing is spaced.

use crate::base64;
use crate::json::{push_hex, push_number, push_string};
use crate::passport::media_keys::MediaKeys;
use crate::passport::read::Type;
use crate::sign::Attest;
use crate::tn::Party;

/// Appends the JOSE header object.
pub fn push_jose(passport_type: Type, x5u: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"alg\":\"ES256\"");
    if let Some(ppt) = passport_type.ppt() {
        out.extend_from_slice(b",\"ppt\":");
        push_string(ppt, out);
    }
    out.extend_from_slice(b",\"typ\":\"passport\",\"x5u\":");
    push_string(x5u, out);
    out.push(b'}');
}

/// Appends the payload of a SHAKEN PASSporT.
pub fn push_shaken(
    attest: Attest,
    orig: &Party,
    dest: &[Party],
    iat: u64,
    origid: &[u8; 16],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"attest\":");
    push_string(attest.as_str(), out);
    out.extend_from_slice(b",\"dest\":");
    push_dest(dest, out);
    out.extend_from_slice(b",\"iat\":");
    push_number(iat, out);
    out.extend_from_slice(b",\"orig\":");
    push_party(orig, out);
    out.extend_from_slice(b",\"origid\":\"");
    push_uuid(origid, out);
    out.extend_from_slice(b"\"}");
}

/// Appends the payload of a base PASSporT: what a compact form stands for (RFC 8225 7).
pub fn push_base(orig: &Party, dest: &[Party], iat: u64, keys: &MediaKeys, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"dest\":");
    push_dest(dest, out);
    out.extend_from_slice(b",\"iat\":");
    push_number(iat, out);
    if !keys.is_empty() {
        out.extend_from_slice(b",\"mky\":");
        keys.write(out);
    }
    out.extend_from_slice(b",\"orig\":");
    push_party(orig, out);
    out.push(b'}');
}

/// Appends the payload of a div PASSporT (RFC 8946 3).
pub fn push_div(orig: &Party, dest: &[Party], div: &Party, iat: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"dest\":");
    push_dest(dest, out);
    out.extend_from_slice(b",\"div\":");
    push_party(div, out);
    out.extend_from_slice(b",\"iat\":");
    push_number(iat, out);
    out.extend_from_slice(b",\"orig\":");
    push_party(orig, out);
    out.push(b'}');
}

/// `{"tn":"..."}` or `{"uri":"..."}`.
fn push_party(party: &Party, out: &mut Vec<u8>) {
    match party {
        Party::Tn(tn) => {
            out.extend_from_slice(b"{\"tn\":");
            push_string(tn.as_str(), out);
        }
        Party::Uri(uri) => {
            out.extend_from_slice(b"{\"uri\":");
            push_string(uri, out);
        }
    }
    out.push(b'}');
}

/// `{"tn":[...],"uri":[...]}`, sorted, absent arrays left out.
fn push_dest(dest: &[Party], out: &mut Vec<u8>) {
    out.push(b'{');
    // `Party` orders numbers before URIs and each by its text, so that one sorted list serves both
    // arrays. One destination, the usual case, needs no list.
    let mut sorted: smallvec::SmallVec<[&Party; 4]> = dest.iter().collect();
    sorted.sort_unstable_by(|one, two| match (one, two) {
        (Party::Tn(one), Party::Tn(two)) => one.as_bytes().cmp(two.as_bytes()),
        (Party::Uri(one), Party::Uri(two)) => one.cmp(two),
        (Party::Tn(_), Party::Uri(_)) => std::cmp::Ordering::Less,
        (Party::Uri(_), Party::Tn(_)) => std::cmp::Ordering::Greater,
    });
    let mut open: Option<&str> = None;
    for party in sorted {
        let (name, text) = match party {
            Party::Tn(tn) => ("tn", tn.as_str()),
            Party::Uri(uri) => ("uri", uri.as_ref()),
        };
        if open == Some(name) {
            out.push(b',');
        } else {
            if open.is_some() {
                out.extend_from_slice(b"],");
            }
            push_string(name, out);
            out.extend_from_slice(b":[");
            open = Some(name);
        }
        push_string(text, out);
    }
    if open.is_some() {
        out.push(b']');
    }
    out.push(b'}');
}

/// 8-4-4-4-12 (RFC 9562 4).
fn push_uuid(octets: &[u8; 16], out: &mut Vec<u8>) {
    for (index, octet) in octets.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        push_hex(*octet, out);
    }
}

/// Appends `json` in base64url.
pub fn push_encoded(json: &[u8], out: &mut Vec<u8>) {
    base64::encode_url(json, out);
}
