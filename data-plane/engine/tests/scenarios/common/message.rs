//! Messages and descriptions as peers write and read them.

use ravelin_wire::sip::{Framing, Message};

/// CRLF line ends, and a Content-Length.
pub fn finish(message: &str) -> String {
    let message = message.replace("\r\n", "\n");
    let (head, body) = message.split_once("\n\n").unwrap_or_else(|| (message.trim_end(), ""));
    let body = body.replace('\n', "\r\n");
    let head = head.replace('\n', "\r\n");
    if head.to_ascii_lowercase().contains("\r\ncontent-length:") {
        return format!("{head}\r\n\r\n{body}");
    }
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A message as a peer sees it.
#[derive(Clone, Debug)]
pub struct Msg(pub String);

impl Msg {
    pub fn parsed(&self) -> Message<'_> {
        Message::parse(self.0.as_bytes(), Framing::Datagram).unwrap()
    }

    /// The whole value of the first header with this name.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.try_header(name).unwrap_or_else(|| panic!("no {name} in\n{}", self.0))
    }

    pub fn try_header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let (head, _) = self.0.split_once("\r\n\r\n").unwrap();
        head.split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    pub fn start(&self) -> &str {
        self.0.split_once("\r\n").unwrap().0
    }

    pub fn request_uri(&self) -> &str {
        self.start().split(' ').nth(1).unwrap()
    }

    pub fn contact_uri(&self) -> &str {
        let contact = self.header("Contact");
        contact.split_once('<').unwrap().1.split_once('>').unwrap().0
    }

    pub fn to_tag(&self) -> String {
        let parsed = self.parsed();
        String::from_utf8(parsed.to().tag().unwrap_or_default().to_vec()).unwrap()
    }

    pub fn cseq(&self) -> u32 {
        self.parsed().cseq().number
    }

    /// Port of the m= line with this index.
    pub fn media_port(&self, index: usize) -> u16 {
        let line = self.body().split("\r\n").filter(|line| line.starts_with("m=")).nth(index);
        line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// A response to this request: Via, From, To, Call-ID, CSeq as they came. `more` are header
    /// lines, and after an empty line the body.
    pub fn reply(&self, status: &str, tag: &str, more: &str) -> String {
        let mut out = format!("SIP/2.0 {status}\n");
        for via in self.headers("Via") {
            out.push_str(&format!("Via: {via}\n"));
        }
        for route in self.headers("Record-Route") {
            out.push_str(&format!("Record-Route: {route}\n"));
        }
        let to = self.header("To");
        let to = if to.contains(";tag=") || tag.is_empty() {
            to.to_owned()
        } else {
            format!("{to};tag={tag}")
        };
        out.push_str(&format!("From: {}\nTo: {to}\n", self.header("From")));
        out.push_str(&format!("Call-ID: {}\n", self.header("Call-ID")));
        out.push_str(&format!("CSeq: {}\n", self.header("CSeq")));
        out.push_str(more);
        out
    }
}

/// A session description of a peer.
pub fn sdp(ip: &str, port: u16) -> String {
    sdp_with(ip, port, 1, "sendrecv")
}

pub fn sdp_with(ip: &str, port: u16, version: u32, direction: &str) -> String {
    format!(
        "v=0\no=peer 77 {version} IN IP4 {ip}\ns=call\nc=IN IP4 {ip}\nt=0 0\n\
         m=audio {port} RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000\na={direction}\n"
    )
}

/// Header and body of a session description.
pub fn sdp_part(ip: &str, port: u16) -> String {
    format!("Content-Type: application/sdp\n\n{}", sdp(ip, port))
}
