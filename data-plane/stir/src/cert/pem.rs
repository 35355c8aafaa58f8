//! PEM texts (RFC 7468): certificates, keys and revocation lists, with CRLF, explanatory text and
//! bag attributes between the blocks (ST-52).

use crate::base64;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    /// `CERTIFICATE`, `PRIVATE KEY`, ...
    pub label: String,
    pub der: Vec<u8>,
}

/// All blocks of a text, in order. None if a block is broken: no end, wrong end label, not base64.
#[must_use]
pub fn blocks(text: &[u8]) -> Option<Vec<Pem>> {
    let mut found = Vec::new();
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for line in text.split(|octet| *octet == b'\n') {
        let line = line.trim_ascii();
        if let Some(label) = boundary(line, b"-----BEGIN ") {
            if open.replace((label, Vec::new())).is_some() {
                return None;
            }
        } else if let Some(label) = boundary(line, b"-----END ") {
            let (begun, body) = open.take()?;
            (begun == label).then_some(())?;
            let padding = body.iter().rev().take_while(|octet| **octet == b'=').count();
            (padding <= 2 && body.len().is_multiple_of(4)).then_some(())?;
            let mut der = Vec::with_capacity(body.len());
            base64::decode_standard(body.get(..body.len() - padding)?, &mut der)?;
            found.push(Pem { label: String::from_utf8(label.to_vec()).ok()?, der });
        } else if let Some((_, body)) = &mut open {
            // RFC 1421 headers of encrypted keys have a colon; such keys are not supported.
            if line.contains(&b':') {
                return None;
            }
            body.extend_from_slice(line);
        }
    }
    open.is_none().then_some(found)
}

fn boundary<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(start)?.strip_suffix(b"-----")
}

/// The certificates of a text: PEM blocks, or one certificate in DER. Private keys and other blocks
/// are passed over. None if the text is broken.
#[must_use]
pub fn certificates(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    select(text, &["CERTIFICATE", "X509 CERTIFICATE"])
}

/// The revocation lists of a text, PEM or DER.
#[must_use]
pub fn revocation_lists(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    select(text, &["X509 CRL", "CRL"])
}

fn select(text: &[u8], labels: &[&str]) -> Option<Vec<Vec<u8>>> {
    // A DER certificate or list starts with a SEQUENCE, which no PEM text does ('0' alone is no
    // explanatory text that occurs).
    if text.first() == Some(&0x30) {
        return Some(vec![text.to_vec()]);
    }
    let blocks = blocks(text)?;
    let wanted = |block: Pem| labels.contains(&block.label.as_str()).then_some(block.der);
    Some(blocks.into_iter().filter_map(wanted).collect())
}

/// Writes one block with lines of 64 characters.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let mut body = Vec::new();
    base64::encode_url(der, &mut body);
    for octet in &mut body {
        *octet = match *octet {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
    }
    while !body.len().is_multiple_of(4) {
        body.push(b'=');
    }
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        let text = b"Bag Attributes\r\n  friendlyName: x\r\n-----BEGIN CERTIFICATE-----\r\nAAEC\r\n-----END CERTIFICATE-----\r\n\r\n-----BEGIN PRIVATE KEY-----\nAAE=\n-----END PRIVATE KEY-----\n";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].label, "PRIVATE KEY");
        assert_eq!(found[1].der, [0, 1]);
        assert_eq!(certificates(text).unwrap(), [vec![0, 1, 2]]);
        for broken in [
            "-----BEGIN CERTIFICATE-----\nAAEC\n",
            "-----BEGIN CERTIFICATE-----\nAAEC\n-----END X-----\n",
            "-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAE\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nA-EC\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nA===\n-----END CERTIFICATE-----\n",
            "-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(blocks(broken.as_bytes()), None, "{broken}");
        }
        assert_eq!(blocks(b"nothing"), Some(vec![]));
    }

    proptest! {
        #[test]
        fn round_trip(der in proptest::collection::vec(any::<u8>(), 1..200)) {
            let text = encode("X509 CRL", &der);
            let found = blocks(text.as_bytes()).unwrap();
            prop_assert_eq!(found, vec![Pem { label: "X509 CRL".into(), der }]);
        }

        #[test]
        fn total(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = blocks(&text);
        }
    }
}
