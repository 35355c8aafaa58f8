//! What the verification service needs of a SIP request, taken with the data plane's parser. A file
//! that the parser refuses (a capture with bare line feeds, say) is taken apart leniently, so that
//! its Identity header gets a verdict all the same; the caller is told.

use ravelin_stir::{
    passport::MediaKeys,
    tn::{NumberPlan, Parties, UserIsTn, parties_in},
};
use ravelin_wire::{
    sdp::fingerprints,
    sip::{ContentType, Framing, HeaderName, Message, NameAddr, parse_date},
};

/// Identity-related parts of a request.
pub(super) struct Request {
    pub(super) identities: Vec<Vec<u8>>,
    pub(super) orig: Parties,
    pub(super) to: Parties,
    pub(super) request_uri: Parties,
    pub(super) date: Option<u64>,
    /// Fingerprints in the SDP.
    pub(super) media_keys: Option<MediaKeys>,
    /// Why the data plane would refuse the message as a whole.
    pub(super) refused: Option<&'static str>,
}

/// How numbers are found.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) user_is_tn: UserIsTn,
    /// How numbers without `+` are completed.
    pub(super) plan: NumberPlan<'static>,
    /// P-Asserted-Identity comes before From (ST-17).
    pub(super) asserted: bool,
}

/// Reads a request. None if there is nothing like a request line.
pub(super) fn read(bytes: &[u8], rules: Rules) -> Option<Request> {
    match Message::parse(bytes, Framing::Datagram) {
        Ok(message) => {
            let all = |name| message.values(name).map(<[u8]>::to_vec).collect();
            // The raw lines: a value may be too broken to be split here.
            let identities = message
                .headers()
                .filter(|header| header.name == HeaderName::Identity)
                .map(|header| header.value.to_vec())
                .collect();
            let from = vec![message.from().uri.to_vec()];
            Some(Request::of(
                identities,
                message.request_uri()?,
                Addresses {
                    asserted: all(HeaderName::PAssertedIdentity),
                    from,
                    to: message.to().uri.to_vec(),
                },
                message.header(HeaderName::Date),
                Some(media_keys(message.content(), message.body())),
                rules,
            ))
        }
        Err(error) => {
            let mut request = lenient(bytes, rules)?;
            request.refused = Some(error.reason());
            Some(request)
        }
    }
}

struct Addresses {
    /// Name-addr values.
    asserted: Vec<Vec<u8>>,
    /// URIs.
    from: Vec<Vec<u8>>,
    to: Vec<u8>,
}

impl Request {
    fn of(
        identities: Vec<Vec<u8>>,
        request_uri: &[u8],
        addresses: Addresses,
        date: Option<&[u8]>,
        media_keys: Option<MediaKeys>,
        rules: Rules,
    ) -> Self {
        let asserted: Vec<Vec<u8>> =
            addresses.asserted.iter().filter_map(|value| uri_of(value)).collect();
        let orig = if rules.asserted && !asserted.is_empty() { asserted } else { addresses.from };
        let parties = |uri: &[u8]| parties_in(uri, rules.user_is_tn, &rules.plan);
        Self {
            identities,
            orig: orig.iter().flat_map(|uri| parties(uri)).collect(),
            to: parties(&addresses.to),
            request_uri: parties(request_uri),
            date: date.and_then(parse_date),
            media_keys,
            refused: None,
        }
    }
}

fn uri_of(value: &[u8]) -> Option<Vec<u8>> {
    NameAddr::parse(value).map(|address| address.uri.to_vec())
}

/// Fingerprints of the SDP in a body, alone or in a multipart.
fn media_keys(content: Option<ContentType<'_>>, body: &[u8]) -> MediaKeys {
    let sdp = content.and_then(|kind| kind.find_part(body, b"application", b"sdp"));
    MediaKeys::of_sdp(fingerprints(sdp.map_or(&[][..], |part| part.body)))
}

/// Header lines by name, folds joined, either line ending.
fn lenient(bytes: &[u8], rules: Rules) -> Option<Request> {
    let mut lines =
        bytes.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let start = lines.find(|line| !line.is_empty())?;
    let mut words = start.split(|octet| *octet == b' ');
    let (_, request_uri, version) = (words.next()?, words.next()?, words.next()?);
    version.starts_with(b"SIP/").then_some(())?;
    let mut headers: Vec<Vec<u8>> = vec![];
    for line in lines.take_while(|line| !line.is_empty()) {
        match headers.last_mut() {
            Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                last.extend_from_slice(line);
            }
            _ => headers.push(line.to_vec()),
        }
    }
    let all = |name: &str, compact: &str| -> Vec<Vec<u8>> {
        let named = |line: &Vec<u8>| {
            let colon = line.iter().position(|octet| *octet == b':')?;
            let found = line.get(..colon)?.trim_ascii();
            let matches = found.eq_ignore_ascii_case(name.as_bytes())
                || found.eq_ignore_ascii_case(compact.as_bytes());
            matches.then(|| line.get(colon + 1..).unwrap_or_default().trim_ascii().to_vec())
        };
        headers.iter().filter_map(named).collect()
    };
    let uri = |name, compact| all(name, compact).first().and_then(|value| uri_of(value));
    Some(Request::of(
        all("identity", "y"),
        request_uri,
        Addresses {
            asserted: all("p-asserted-identity", ""),
            from: uri("from", "f").into_iter().collect(),
            to: uri("to", "t").unwrap_or_default(),
        },
        all("date", "").first().map(Vec::as_slice),
        // Where such a message has its body is a guess.
        None,
        rules,
    ))
}
