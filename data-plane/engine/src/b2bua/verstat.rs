//! The `verstat` parameter: how the verification of the caller's number came out, for a trunk that
//! asks for it (3GPP TS 24.229 7.2A.20; ST-63..ST-65). It is a parameter of the number, so it stands
//! in the user part of a SIP URI, and it stands in one place only: the first P-Asserted-Identity with
//! a tel URI, else the first with a SIP URI, else From.

use ravelin_wire::sip::{HeaderName, Message, NameAddr, Scheme};

/// Where the parameter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The value of P-Asserted-Identity with this index, over all lines.
    Asserted(usize),
    From,
    /// No number is told: nothing can be said of it.
    Nowhere,
}

/// Finds the place in an INVITE.
pub(crate) fn place(invite: &Message<'_>) -> Place {
    let asserted = |tel: bool| {
        invite.values(HeaderName::PAssertedIdentity).position(|value| {
            NameAddr::parse(value).is_some_and(|party| {
                let scheme = party.uri().map(|uri| uri.scheme);
                is_number(&party) && tel == (scheme == Some(Scheme::Tel))
            })
        })
    };
    match asserted(true).or_else(|| asserted(false)) {
        Some(index) => Place::Asserted(index),
        None if is_number(&invite.from()) => Place::From,
        None => Place::Nowhere,
    }
}

fn is_number(party: &NameAddr<'_>) -> bool {
    party.uri().and_then(|uri| uri.user).is_some_and(|user| {
        let user = user.strip_prefix(b"+").unwrap_or(user);
        user.first().is_some_and(u8::is_ascii_digit)
    })
}

/// Appends a name-addr or URI with the parameter behind its number.
pub(crate) fn insert(value: &[u8], verstat: &str, out: &mut Vec<u8>) {
    let at = end_of_number(value).unwrap_or(value.len());
    out.extend_from_slice(value.get(..at).unwrap_or_default());
    out.extend_from_slice(b";verstat=");
    out.extend_from_slice(verstat.as_bytes());
    out.extend_from_slice(value.get(at..).unwrap_or_default());
}

/// Where the user part of the URI in `value` ends; of a tel URI, where it ends as a whole.
fn end_of_number(value: &[u8]) -> Option<usize> {
    // A display name may hold anything, so the URI begins behind the last `<`.
    let open = value.iter().rposition(|&b| b == b'<').map_or(0, |at| at + 1);
    let rest = value.get(open..)?;
    let colon = rest.iter().position(|&b| b == b':')? + 1;
    let tel = rest.get(..colon)?.trim_ascii().eq_ignore_ascii_case(b"tel:");
    let user = rest.get(colon..)?;
    let end = match tel {
        true => user.iter().position(|&b| b == b'>' || b <= b' ').unwrap_or(user.len()),
        // A password is behind the user.
        false => user.iter().position(|&b| b == b'@' || b == b':')?,
    };
    Some(open + colon + end)
}

#[cfg(test)]
mod tests {
    use ravelin_wire::sip::Framing;

    use super::*;

    #[test]
    fn it_stands_behind_the_number() {
        for (given, wanted) in [
            ("\"A <b>\" <sip:+1313@h;user=phone>;x=y", "\"A <b>\" <sip:+1313;V@h;user=phone>;x=y"),
            ("<sip:+1313;cpc=p@h>", "<sip:+1313;cpc=p;V@h>"),
            ("<sip:1313:pw@h>", "<sip:1313;V:pw@h>"),
            ("<tel:+1313;phone-context=x>", "<tel:+1313;phone-context=x;V>"),
            ("tel:+1313", "tel:+1313;V"),
        ] {
            let mut out = Vec::new();
            insert(given.as_bytes(), "TN-Validation-Passed", &mut out);
            let wanted = wanted.replace('V', "verstat=TN-Validation-Passed");
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
    }

    fn place_of(from: &str, asserted: &str) -> Place {
        let text = format!(
            "INVITE sip:1@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nFrom: {from};tag=1\r\n\
             To: <sip:1@h>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n{asserted}\
             Contact: <sip:a@h>\r\nContent-Length: 0\r\n\r\n"
        );
        place(&Message::parse(text.as_bytes(), Framing::Datagram).unwrap())
    }

    /// ST-64.
    #[test]
    fn one_place_in_this_order() {
        let pai = "P-Asserted-Identity: <sip:+1313@h>, <tel:+1313>\r\n";
        assert_eq!(place_of("<sip:+1313@h>", pai), Place::Asserted(1));
        let pai = "P-Asserted-Identity: <sip:ann@h>\r\nP-Asserted-Identity: <sip:1313@h>\r\n";
        assert_eq!(place_of("<sip:+1313@h>", pai), Place::Asserted(1));
        assert_eq!(place_of("<sip:+1313@h>", ""), Place::From);
        assert_eq!(place_of("<sip:anonymous@anonymous.invalid>", ""), Place::Nowhere);
    }
}
