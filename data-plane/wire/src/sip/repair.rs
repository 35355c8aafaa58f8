//! What can be left out of a broken request without a change to its meaning. For emergency calls
//! only (EM-55): anybody else's fault is answered, not repaired.

use super::chars::split;
use super::error::ErrorKind;
use super::lines::{self, Index};
use super::message::{Message, Seen, skip_line_ends};
use super::name::HeaderName;
use crate::limits::MESSAGE_MAX_BYTES;

/// Appends to `out` a copy of the request `bytes` without the header lines that break their rules,
/// where a call can do without them: a malformed Date or Max-Forwards, a second Expires, a second
/// From that is the first one again. Octets in headers that are not UTF-8, and control characters,
/// become `?`. False, with nothing appended, if what is wrong says who calls whom, where the body
/// ends or how the request travels.
///
/// The copy is for [`super::Message::parse`], which still may refuse it.
#[must_use]
pub fn repair(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let bytes = skip_line_ends(bytes);
    if bytes.len() > MESSAGE_MAX_BYTES {
        return false;
    }
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return false };
    let (head, body) = split(bytes, head + 4);
    let head = clean(head);
    let start = out.len();
    let done = copy(&head, out).is_ok();
    if done {
        out.extend_from_slice(body);
    } else {
        out.truncate(start);
    }
    done
}

fn copy(head: &[u8], out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    let (line, headers_at) = lines::start_line(head)?;
    let mut mended = Message::unread();
    mended.take_start(line)?;
    let mut index = Index::EMPTY;
    if lines::scan(head, headers_at, &mut index)? != head.len() {
        return Err(ErrorKind::HeadersUnterminated);
    }
    out.extend_from_slice(split(head, headers_at).0);
    let mut seen = Seen::default();
    let entries = index.entries();
    for entry in entries {
        let value = entry.value(head);
        match mended.take(entry.name, value, &mut seen) {
            Ok(()) => {
                for part in [entry.raw_name(head), b": ", value, b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
            Err(ErrorKind::DuplicateHeader) => {
                let first = entries.iter().find(|known| known.name == entry.name);
                let again = first.is_some_and(|first| first.value(head) == value);
                if !again && !is_expendable(entry.name) {
                    return Err(ErrorKind::DuplicateHeader);
                }
            }
            Err(_) if is_expendable(entry.name) => {}
            Err(kind) => return Err(kind),
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether a call is the same call without this header.
const fn is_expendable(name: HeaderName) -> bool {
    !matches!(
        name,
        HeaderName::Via
            | HeaderName::From
            | HeaderName::To
            | HeaderName::CallId
            | HeaderName::CSeq
            | HeaderName::Contact
            | HeaderName::ContentLength
            | HeaderName::ContentType
            | HeaderName::Route
            | HeaderName::RecordRoute
            | HeaderName::Replaces
            | HeaderName::Join
            | HeaderName::ReferTo
            | HeaderName::RAck
    )
}

/// The head with `?` for every octet that no header may hold, octet for octet. Line ends are kept
/// as they are, right or wrong.
fn clean(head: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(head.len());
    for chunk in head.utf8_chunks() {
        let text = chunk.valid().bytes();
        let odd = |c: u8| c.is_ascii_control() && !matches!(c, b'\r' | b'\n' | b'\t');
        clean.extend(text.map(|c| if odd(c) { b'?' } else { c }));
        clean.extend(chunk.invalid().iter().map(|_| b'?'));
    }
    clean
}
