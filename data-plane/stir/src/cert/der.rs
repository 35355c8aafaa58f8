//! A strict reader and a small writer for DER (X.690 10): definite, minimal lengths only. Used for
//! the STIR certificate extensions, which general X.509 libraries do not know.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const SEQUENCE: u8 = 0x30;

/// Tag octet of a constructed context-specific tag.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Reads one element after the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Tag and content of the next element. None at the end, and for anything that is not DER.
    pub(super) fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        // Tags above 30 do not occur in what this crate reads.
        (tag & 0x1f != 0x1f).then_some(())?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            // Indefinite length, and lengths that no certificate has.
            0x80 | 0x85.. => return None,
            long => {
                let (octets, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length =
                    octets.iter().fold(0u32, |length, octet| length << 8 | u32::from(*octet));
                let minimal = length > 0x7f && octets.first() != Some(&0);
                (minimal.then_some(usize::try_from(length).ok()?)?, rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// Content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.element().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// Content of the next element if it has this tag; else nothing is consumed.
    pub(super) fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.expect(tag) } else { None }
    }
}

/// The only element of `octets`, which must have this tag.
pub(super) fn single(octets: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(octets);
    let content = reader.expect(tag)?;
    reader.is_empty().then_some(content)
}

/// Whether this is `SEQUENCE { SEQUENCE, SEQUENCE, BIT STRING }` and nothing else, with the same
/// algorithm octets inside and outside of what is signed (RFC 5280 4.1.1.2, 5.1.1.2): the frame of
/// a certificate or revocation list, most of which no signature covers.
pub(super) fn is_signed_frame(octets: &[u8]) -> bool {
    let frame = || {
        let mut outer = Reader::new(single(octets, SEQUENCE)?);
        let mut signed = Reader::new(outer.expect(SEQUENCE)?);
        let algorithm = outer.expect(SEQUENCE)?;
        outer.expect(BIT_STRING)?;
        // Version and serial number of a certificate, version of a list.
        let _ = (signed.optional(context(0)), signed.optional(INTEGER));
        Some(outer.is_empty() && signed.expect(SEQUENCE)? == algorithm)
    };
    frame() == Some(true)
}

/// Appends an element.
pub(super) fn push(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let length = content.len().to_be_bytes();
    let significant = length.iter().position(|octet| *octet != 0).unwrap_or(length.len() - 1);
    let significant = length.get(significant..).unwrap_or_default();
    match significant {
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
}

/// An element as a value of its own.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    push(tag, content, &mut out);
    out
}
