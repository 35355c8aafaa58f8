//! SIP as the simulated peers read and write it: plain text, with no code of the product in it, so
//! that a mistake of the product's parser is not repeated by its judge.

/// A message that a peer received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) start: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Received {
    /// `None` if the octets are not a message in the form that Ravelin is to write.
    #[must_use]
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            if name.ends_with(' ') || line.starts_with(' ') {
                return None;
            }
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let message = Self { start, headers, body: body.to_owned() };
        let length: usize = message.header("content-length")?.parse().ok()?;
        (length == message.body.len()).then_some(message)
    }

    #[must_use]
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Status code of a response.
    #[must_use]
    pub(super) fn code(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// Method of a request.
    #[must_use]
    pub(super) fn method(&self) -> Option<&str> {
        if self.code().is_some() {
            return None;
        }
        self.start.split(' ').next()
    }

    /// Request-URI.
    #[must_use]
    pub(super) fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    #[must_use]
    pub(super) fn cseq(&self) -> (u32, &str) {
        let mut parts = self.header("cseq").unwrap_or_default().split_whitespace();
        let number = parts.next().and_then(|text| text.parse().ok()).unwrap_or_default();
        (number, parts.next().unwrap_or_default())
    }

    #[must_use]
    pub(super) fn call_id(&self) -> &str {
        self.header("call-id").unwrap_or_default()
    }

    /// Branch of the topmost Via.
    #[must_use]
    pub(super) fn branch(&self) -> &str {
        parameter(self.header("via").unwrap_or_default(), "branch").unwrap_or_default()
    }

    #[must_use]
    pub(super) fn to_tag(&self) -> Option<&str> {
        parameter(self.header("to")?, "tag")
    }

    /// URI of the Contact, without its brackets.
    #[must_use]
    pub(super) fn contact(&self) -> Option<&str> {
        let contact = self.header("contact")?;
        contact.split_once('<')?.1.split_once('>').map(|(uri, _)| uri)
    }

    /// Address and port of the first audio line of an SDP body.
    #[must_use]
    pub(super) fn audio(&self) -> Option<(String, u16)> {
        let mut address = None;
        let mut port = None;
        for line in self.body.split("\r\n") {
            if let Some(rest) = line.strip_prefix("c=IN IP4 ") {
                address = Some(rest.to_owned());
            }
            if let Some(rest) = line.strip_prefix("m=audio ") {
                port = rest.split(' ').next()?.parse().ok();
            }
        }
        Some((address?, port?))
    }
}

/// Value of a header or URI parameter.
#[must_use]
pub(super) fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    // Parameters of a name-addr stand behind the bracket.
    let tail = value.rsplit_once('>').map_or(value, |(_, tail)| tail);
    tail.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Writes a message: start line, headers, body with its length.
#[must_use]
pub(super) fn write(start: &str, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut text = String::with_capacity(512 + body.len());
    text.push_str(start);
    text.push_str("\r\n");
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

/// An offer or answer with one audio stream.
#[must_use]
pub(super) fn sdp(address: &str, port: u16, version: u32, direction: &str) -> String {
    format!(
        "v=0\r\no=peer 7 {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na={direction}\r\n"
    )
}
