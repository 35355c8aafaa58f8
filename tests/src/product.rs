//! The product as a user starts it: the binary, a data folder, real sockets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::wait;

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A folder of this test's own, removed at the end.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// # Panics
    /// If the folder cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ravelin-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the test left behind: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The binary that was built with this test.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RAVELIN_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("path of this test");
    let folder = test.parent().and_then(Path::parent).expect("target folder");
    let path = folder.join("ravelin");
    assert!(
        path.exists(),
        "{} is missing: build it first with `cargo build --release -p ravelin`",
        path.display()
    );
    path
}

/// A running `ravelin up`, `ravelin edge` or `ravelin control`.
#[derive(Debug)]
pub struct Product {
    child: Child,
    pub data: PathBuf,
    api: SocketAddr,
}

impl Product {
    /// Starts `ravelin up` and waits until the edge is in service.
    ///
    /// # Panics
    /// If it does not come up; its log is shown.
    #[must_use]
    pub fn up(config: &str, api: &str, folder: &Folder) -> Self {
        let file = folder.path().join("ravelin.yml");
        std::fs::write(&file, config).expect("config file");
        let data = folder.path().join("data");
        let log = std::fs::File::create(folder.path().join("ravelin.log")).expect("log file");
        let child = Command::new(binary())
            .arg("up")
            .arg("--config")
            .arg(&file)
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("ravelin up");
        let product = Self { child, data, api: api.parse().expect("API address") };
        let log = folder.path().join("ravelin.log");
        wait::until(
            &format!("ravelin up is in service; its log is {}", log.display()),
            Duration::from_secs(30),
            || product.metric("ravelin_shards_in_service").filter(|shards| *shards >= 1.0),
        );
        product
    }

    /// Process id of the program that was started.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Process id of the edge, from `DIR/run/edge.pid`.
    #[must_use]
    pub fn edge_id(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.data.join("run/edge.pid")).ok()?;
        text.trim().parse().ok()
    }

    /// Process id of a plane (`edge`, `control`) that `ravelin up` started.
    #[must_use]
    pub fn plane(&self, name: &str) -> Option<u32> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().filter_map(|text| text.parse().ok()).find(|child: &u32| {
            let words = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            words.split(|octet| *octet == 0).nth(1) == Some(name.as_bytes())
        })
    }

    /// The first admin token.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn token(&self) -> String {
        let token = std::fs::read_to_string(self.data.join("admin.token")).expect("admin.token");
        token.trim().to_owned()
    }

    /// One request to the API: status and body.
    ///
    /// # Errors
    /// If there is no connection, or no answer within ten seconds.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &str)>,
    ) -> std::io::Result<(u16, String)> {
        let token = std::fs::read_to_string(self.data.join("admin.token")).unwrap_or_default();
        http(self.api, method, path, token.trim(), body)
    }

    /// Sum of a metric over its labels; `None` while there is no such metric.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.request("GET", "/metrics", None).ok()?;
        let mut sum = None;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            if !rest.starts_with([' ', '{']) {
                continue;
            }
            let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
            *sum.get_or_insert(0.0) += value;
        }
        sum
    }

    /// Resident memory of the edge in bytes.
    #[must_use]
    pub fn edge_rss(&self) -> Option<u64> {
        rss(self.edge_id()?)
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while std::time::Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            wait::pause();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process in bytes.
#[must_use]
pub fn rss(id: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Sends a signal to a process that the test started.
pub fn signal(id: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
}

/// One HTTP request, by hand: the judge shares no HTTP code with the product.
///
/// # Errors
/// If there is no connection, or no answer within ten seconds.
pub fn http(
    to: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    body: Option<(&str, &str)>,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (kind, body) = body.unwrap_or(("application/json", ""));
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {to}\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
