//! Where notifications arrive in tests: a mail server that speaks SMTP (RFC 5321) and can
//! misbehave, and a web server that takes the webhook.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the mail server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes every mail.
    Take,
    /// Says nothing at all, not even the greeting.
    Silent,
    /// Reads the whole mail and never answers.
    TakeAndHang,
    /// Answers this to MAIL, so many times, then takes.
    Answer(&'static str, usize),
}

/// A mail server on loopback.
pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    mails: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl MailServer {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.10.0.25:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manner, mails) = (Arc::new(Mutex::new(manner)), Arc::default());
        let (of_task, to) = (Arc::clone(&manner), Arc::clone(&mails));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (manner, mails) = (Arc::clone(&of_task), Arc::clone(&to));
                // A client that goes away ends its conversation.
                tokio::spawn(async move { converse(stream, &manner, &mails).await.ok() });
            }
        });
        Self { address, manner, mails, task }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// The mails that came, headers and text.
    pub(crate) fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    mut stream: TcpStream,
    manner: &Mutex<Manner>,
    mails: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    if *manner.lock().unwrap() == Manner::Silent {
        while lines.next_line().await?.is_some() {}
        return Ok(());
    }
    write.write_all(b"220 mail.example ESMTP\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-mail.example\r\n250 8BITMIME".to_owned(),
            "MAIL" => refusal(&mut manner.lock().unwrap()).unwrap_or("250 OK").to_owned(),
            "RCPT" | "RSET" | "NOOP" => "250 OK".to_owned(),
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while let Some(line) = lines.next_line().await? {
                    if line == "." {
                        break;
                    }
                    mail.push_str(line.strip_prefix('.').unwrap_or(&line));
                    mail.push('\n');
                }
                mails.lock().unwrap().push(mail);
                if *manner.lock().unwrap() == Manner::TakeAndHang {
                    while lines.next_line().await?.is_some() {}
                    return Ok(());
                }
                "250 2.0.0 queued as 4711".to_owned()
            }
            "QUIT" => "221 bye".to_owned(),
            _ => "500 what?".to_owned(),
        };
        write.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

fn refusal(manner: &mut Manner) -> Option<&'static str> {
    let Manner::Answer(words, left) = manner else { return None };
    let (words, more) = (*words, left.saturating_sub(1));
    *manner = if more == 0 { Manner::Take } else { Manner::Answer(words, more) };
    Some(words)
}

/// One POST that came.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Posted {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Clone)]
struct Hooked {
    status: Arc<Mutex<StatusCode>>,
    posted: Arc<Mutex<Vec<Posted>>>,
}

/// A web server on loopback that takes the webhook.
pub(crate) struct Hook {
    pub(crate) url: String,
    hooked: Hooked,
    task: JoinHandle<()>,
}

impl Hook {
    pub(crate) async fn start(status: StatusCode) -> Self {
        let listener = TcpListener::bind("127.10.0.80:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let hooked = Hooked { status: Arc::new(Mutex::new(status)), posted: Arc::default() };
        let router = Router::new().route("/hook", post(take)).with_state(hooked.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, hooked, task }
    }

    pub(crate) fn answer(&self, status: StatusCode) {
        *self.hooked.status.lock().unwrap() = status;
    }

    pub(crate) fn posted(&self) -> Vec<Posted> {
        self.hooked.posted.lock().unwrap().clone()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(hooked): State<Hooked>, headers: HeaderMap, body: Bytes) -> StatusCode {
    hooked.posted.lock().unwrap().push(Posted { headers, body });
    *hooked.status.lock().unwrap()
}
