//! Our own location object: a PIDF-LO of the caller's site, and the multipart body that carries it
//! beside the SDP (RFC 4119, 5139, 5491, 6442; EM-30, EM-31, EM-36..EM-38).
//!
//! It is made only when the caller's own INVITE brought no location: what a caller sends is never
//! replaced (EM-29). Emergency calls are rare, so this allocates freely.

use ravelin_policy::Address;

/// How the location was found, for the `method` element (RFC 4119 2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The site table of the operator: somebody wrote the address down.
    Manual,
    /// A default of trunk or tenant: the caller may be elsewhere (EM-27).
    Default,
}

impl Method {
    const fn token(self) -> &'static str {
        match self {
            Self::Manual => "Manual",
            Self::Default => "Default",
        }
    }
}

/// What a location object says.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    /// Callback number or user of the caller, for the `entity`.
    pub entity_user: &'a str,
    /// Host of the `entity`, of the Content-ID and of `provided-by`: Ravelin's own.
    pub host: &'a str,
    pub address: &'a Address,
    pub method: Method,
    pub unix_ms: u64,
}

/// Writes the PIDF-LO document. One device, one civic address, elements in the order of the schema
/// (RFC 5139 4.1, EM-36).
#[must_use]
pub fn document(location: &Location<'_>) -> Vec<u8> {
    let mut xml = String::with_capacity(1200);
    xml.push_str(concat!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n",
        "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"",
        " xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\"",
        " xmlns:gp=\"urn:ietf:params:xml:ns:pidf:geopriv10\"",
        " xmlns:ca=\"urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr\"",
        " entity=\"pres:"
    ));
    escape(location.entity_user, &mut xml);
    xml.push('@');
    escape(location.host, &mut xml);
    xml.push_str("\">\r\n<dm:device id=\"caller\">\r\n<gp:geopriv>\r\n<gp:location-info>\r\n");
    xml.push_str("<ca:civicAddress xml:lang=\"en\">\r\n");
    civic(location.address, &mut xml);
    xml.push_str("</ca:civicAddress>\r\n</gp:location-info>\r\n<gp:usage-rules>\r\n");
    xml.push_str("<gp:retransmission-allowed>yes</gp:retransmission-allowed>\r\n");
    // A day, the default of RFC 4119 2.2.2: the object describes one call.
    element("gp:retention-expiry", &timestamp(location.unix_ms + 86_400_000), &mut xml);
    xml.push_str("</gp:usage-rules>\r\n");
    element("gp:method", location.method.token(), &mut xml);
    xml.push_str("<gp:provided-by>");
    escape(location.host, &mut xml);
    xml.push_str("</gp:provided-by>\r\n</gp:geopriv>\r\n");
    element("dm:deviceID", "urn:ravelin:caller", &mut xml);
    element("dm:timestamp", &timestamp(location.unix_ms), &mut xml);
    xml.push_str("</dm:device>\r\n</presence>\r\n");
    xml.into_bytes()
}

/// The civic elements that the site has, in schema order: country, A1 (state), A3 (city), RD, HNO,
/// FLR, PC, BLD, ROOM (EM-36).
fn civic(address: &Address, xml: &mut String) {
    let (number, road) = match &address.street {
        Some(street) => house_number(street),
        None => (None, None),
    };
    let elements = [
        ("ca:country", Some(address.country.as_str())),
        ("ca:A1", address.state.as_deref()),
        ("ca:A3", address.city.as_deref()),
        ("ca:RD", road),
        ("ca:HNO", number),
        ("ca:FLR", address.floor.as_deref()),
        ("ca:PC", address.postal_code.as_deref()),
        ("ca:BLD", address.building.as_deref()),
        ("ca:ROOM", address.room.as_deref()),
    ];
    for (name, value) in elements {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            element(name, value, xml);
        }
    }
}

/// Splits `1234 Industrial Blvd` into number and road. A street without a leading number of digits
/// only is all road.
fn house_number(street: &str) -> (Option<&str>, Option<&str>) {
    let street = street.trim();
    match street.split_once(' ') {
        Some((number, road))
            if !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit()) =>
        {
            (Some(number), Some(road.trim_start()))
        }
        _ => (None, Some(street)),
    }
}

fn element(name: &str, value: &str, xml: &mut String) {
    xml.push('<');
    xml.push_str(name);
    xml.push('>');
    escape(value, xml);
    xml.push_str("</");
    xml.push_str(name);
    xml.push_str(">\r\n");
}

/// Escapes text for element content and attribute values; control characters, which XML 1.0 cannot
/// hold, become spaces.
fn escape(text: &str, xml: &mut String) {
    for character in text.chars() {
        match character {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\'' => xml.push_str("&apos;"),
            control if control.is_control() => xml.push(' '),
            other => xml.push(other),
        }
    }
}

/// RFC 3339 in UTC, whole seconds.
fn timestamp(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) =
        (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    // Days to a date of the proleptic Gregorian calendar: count in years that begin in March, so
    // that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A multipart/mixed body and the headers that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    /// Value of Content-Type, with the boundary.
    pub content_type: String,
    /// Value of the Geolocation header: `<cid:...>`, the Content-ID without its brackets
    /// (RFC 2392, RFC 6442 4.1).
    pub geolocation: String,
    pub body: Vec<u8>,
}

/// Joins an SDP body, if there is one, and a location object: SDP first (EM-31). `token` makes
/// Content-ID and boundary unique; it must be of RFC 2045 boundary characters, at most 40.
///
/// `None` when the boundary stands inside one of the parts: the caller then goes without our
/// location rather than with a body that a peer reads differently.
#[must_use]
pub fn multipart(sdp: &[u8], document: &[u8], token: &str, host: &str) -> Option<Multipart> {
    let boundary = format!("rv-{token}");
    let delimiter = format!("--{boundary}");
    if contains(sdp, delimiter.as_bytes()) || contains(document, delimiter.as_bytes()) {
        return None;
    }
    let content_id = format!("{token}@{host}");
    let mut body = Vec::with_capacity(sdp.len() + document.len() + 300);
    if !sdp.is_empty() {
        body.extend_from_slice(delimiter.as_bytes());
        body.extend_from_slice(b"\r\nContent-Type: application/sdp\r\n\r\n");
        body.extend_from_slice(sdp);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(delimiter.as_bytes());
    body.extend_from_slice(b"\r\nContent-Type: application/pidf+xml\r\nContent-ID: <");
    body.extend_from_slice(content_id.as_bytes());
    body.extend_from_slice(b">\r\n\r\n");
    body.extend_from_slice(document);
    body.extend_from_slice(b"\r\n");
    body.extend_from_slice(delimiter.as_bytes());
    body.extend_from_slice(b"--\r\n");
    Some(Multipart {
        content_type: format!("multipart/mixed;boundary={boundary}"),
        geolocation: format!("<cid:{content_id}>"),
        body,
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detroit() -> Address {
        Address {
            street: Some("1234 Industrial Blvd".into()),
            building: Some("Building A & B".into()),
            floor: Some("1".into()),
            room: None,
            city: Some("Detroit".into()),
            state: Some("MI".into()),
            postal_code: Some("48201".into()),
            country: "US".into(),
        }
    }

    fn written(address: &Address) -> String {
        let location = Location {
            entity_user: "+13135551000",
            host: "127.0.0.20",
            address,
            method: Method::Manual,
            unix_ms: 1_767_225_600_000,
        };
        String::from_utf8(document(&location)).expect("UTF-8")
    }

    #[test]
    fn civic_elements_stand_in_schema_order() {
        let xml = written(&detroit());
        let places: Vec<usize> = [
            "country>US",
            "A1>MI",
            "A3>Detroit",
            "RD>Industrial Blvd",
            "HNO>1234",
            "FLR>1",
            "PC>48201",
            "BLD>Building A &amp; B",
        ]
        .iter()
        .map(|part| xml.find(part).unwrap_or_else(|| panic!("{part} in {xml}")))
        .collect();
        assert!(places.is_sorted(), "{xml}");
        assert!(!xml.contains("ca:ROOM"), "{xml}");
    }

    #[test]
    fn geopriv_has_method_provider_rules_and_timestamp() {
        let xml = written(&detroit());
        for part in [
            "<gp:method>Manual</gp:method>",
            "<gp:provided-by>127.0.0.20</gp:provided-by>",
            "<gp:retransmission-allowed>yes</gp:retransmission-allowed>",
            "<gp:retention-expiry>2026-01-02T00:00:00Z</gp:retention-expiry>",
            "<dm:timestamp>2026-01-01T00:00:00Z</dm:timestamp>",
            "entity=\"pres:+13135551000@127.0.0.20\"",
        ] {
            assert!(xml.contains(part), "{part} in {xml}");
        }
    }

    #[test]
    fn hostile_address_text_stays_text() {
        let address = Address {
            street: Some("<evil attr=\"1\">&amp;\r\n\u{0}".into()),
            country: "US".into(),
            ..Address::default()
        };
        let xml = written(&address);
        assert!(xml.contains("<ca:RD>&lt;evil attr=&quot;1&quot;&gt;&amp;amp;"), "{xml}");
        assert!(!xml.contains('\u{0}'), "{xml}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(unix_ms), text);
        }
    }

    #[test]
    fn parts_are_joined_with_a_content_id_that_the_header_names() {
        let joined = multipart(b"v=0\r\n", b"<presence/>", "abc", "127.0.0.20").expect("joined");
        assert_eq!(joined.geolocation, "<cid:abc@127.0.0.20>");
        assert_eq!(joined.content_type, "multipart/mixed;boundary=rv-abc");
        let text = String::from_utf8(joined.body).expect("UTF-8");
        assert_eq!(
            text,
            "--rv-abc\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n\r\n--rv-abc\r\n\
             Content-Type: application/pidf+xml\r\nContent-ID: <abc@127.0.0.20>\r\n\r\n\
             <presence/>\r\n--rv-abc--\r\n"
        );
        assert_eq!(multipart(b"x--rv-abc", b"", "abc", "h"), None);
    }
}
