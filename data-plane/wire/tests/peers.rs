//! What we would forward means the same to other parsers: libosip2 and sofia-sip read the rewritten
//! form of everything we accept, good messages and thousands of damaged ones, and must find the
//! same identifiers and as many Via, Contact and Route values, or refuse.

use std::path::{Path, PathBuf};
use std::process::Command;

use ravelin_wire::sip::{Framing, HeaderName, Message, StartLine, Writer};

/// Damaged copies made of each message.
const VARIANTS: u32 = 120;
/// Files named on one command line.
const BATCH: usize = 500;

fn conformance() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

/// What tempts one parser and not another, put somewhere into a message.
const TRICKS: &[&[u8]] = &[
    b" :",
    b"\t:",
    b"\r\n ",
    b"\r\n\t",
    b"\r",
    b"\n",
    b"\0",
    b"\r\nRoute: <sip:evil.example;lr>\r\n",
    b"\r\nm: <sip:evil@x>\r\n",
    b"\nVia: SIP/2.0/UDP evil\r\n",
    b"\rRoute: <sip:evil>\r\n",
    b",",
    b";",
    b"\"",
    b"\\\"",
    b"<",
    b">",
    b"<>",
    b";tag=evil",
    b";branch=z9hG4bKevil",
    b", <sip:evil@x>",
    b"%0d%0a",
    b"\xc0\x8d\xc0\x8a",
    b"\xe2\x80\xa8",
    b"\r\nCall-ID: evil\r\n",
    b"\r\ni: evil\r\n",
    b"\r\nl: 5\r\n",
    b"\r\nCSeq: 9 BYE\r\n",
    b"?",
    b"@",
    b":",
    b"=",
    b"()",
    b"\r\n\r\n",
    b"\x0b",
    b"\x7f",
    b"\xc2\xa0",
];

/// The conformance messages and damaged copies, the same at every run.
fn inputs() -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = ["rfc4475/messages", "rfc5118/messages"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(conformance().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut state = 1u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(state >> 8).unwrap() % below
    };
    let mut inputs = Vec::new();
    for file in files {
        let good = std::fs::read(file).unwrap();
        for _ in 0..VARIANTS {
            let mut bad = good.clone();
            for _ in 0..=random(2) {
                let at = random(bad.len());
                match random(4) {
                    0 => drop(bad.remove(at)),
                    1 => bad[at] = TRICKS[random(TRICKS.len())][0],
                    _ => drop(bad.splice(at..at, TRICKS[random(TRICKS.len())].iter().copied())),
                }
            }
            inputs.push(bad);
        }
        inputs.push(good);
    }
    inputs
}

/// The message as it is passed on; `None` when it is refused on the way in or out.
fn forwarded(message: &Message<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    match message.start() {
        StartLine::Request { method, uri } => writer.request_line(method.as_bytes(), uri),
        StartLine::Response { code, reason } => writer.status_line(code, reason),
    };
    for header in message.headers() {
        if header.name != HeaderName::ContentLength {
            writer.header_named(header.raw_name, header.value);
        }
    }
    writer.body(None, message.body()).ok()?;
    Some(out)
}

/// Our reading, in the words of the C programs.
fn ours(message: &Message<'_>) -> Vec<String> {
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or(b"-")).into_owned();
    let start = match message.start() {
        StartLine::Request { method, .. } => method.to_string(),
        StartLine::Response { code, .. } => code.to_string(),
    };
    vec![
        format!("start={start}"),
        format!("from={}", text(message.from().tag())),
        format!("to={}", text(message.to().tag())),
        format!("call_id={}", text(Some(message.call_id()))),
        format!("cseq={} {}", message.cseq().number, message.cseq().method),
        format!("branch={}", text(message.top_via().branch)),
        format!("vias={}", message.via_count()),
        format!("contacts={}", message.values(HeaderName::Contact).count()),
        format!("routes={}", message.values(HeaderName::Route).count()),
    ]
}

/// Builds one of the C programs; `None` when the library is not installed.
fn build(folder: &Path, name: &str, package: &str) -> Option<PathBuf> {
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", package]).output().ok()?;
    if !flags.status.success() {
        return None;
    }
    let program = folder.join(name);
    let flags = String::from_utf8(flags.stdout).unwrap();
    let source = conformance().join("peers").join(format!("{name}.c"));
    let status = Command::new("cc")
        .args(["-O1", "-w", "-o"])
        .arg(&program)
        .arg(source)
        .args(flags.split_whitespace())
        .status()
        .ok()?;
    assert!(status.success(), "{name}.c does not compile");
    Some(program)
}

/// Blocks of lines, one for each file.
fn readings(program: &Path, files: &[PathBuf]) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    for batch in files.chunks(BATCH) {
        let output = Command::new(program).args(batch).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // libosip2 writes its log between the lines.
        let own = |line: &&str| !line.starts_with('|');
        let lines = |block: &str| block.lines().filter(own).map(str::to_owned).collect();
        blocks.extend(text.split("#\n").skip(1).map(lines));
    }
    assert_eq!(blocks.len(), files.len(), "{} stopped half way", program.display());
    blocks
}

fn compare(test: &str, name: &str, package: &str, debian: &str) {
    let folder = std::env::temp_dir().join(format!("ravelin-wire-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let Some(program) = build(&folder, name, package) else {
        println!("skipped: {test}: {debian} is not installed");
        std::fs::remove_dir_all(&folder).unwrap();
        return;
    };
    let inputs = inputs();
    let mut expected = Vec::new();
    let mut files = Vec::new();
    for input in &inputs {
        let Ok(message) = Message::parse(input, Framing::Datagram) else { continue };
        let Some(bytes) = forwarded(&message) else { continue };
        let file = folder.join(files.len().to_string());
        std::fs::write(&file, bytes).unwrap();
        files.push(file);
        expected.push(ours(&message));
    }
    let theirs = readings(&program, &files);
    let mut agreed = 0;
    for ((expected, theirs), file) in expected.iter().zip(&theirs).zip(&files) {
        if theirs[0] == "refused=1" {
            continue;
        }
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(theirs, expected, "{name} reads\n{}", String::from_utf8_lossy(&bytes));
        agreed += 1;
    }
    std::fs::remove_dir_all(&folder).unwrap();
    println!("{name}: {agreed} of {} forwarded messages read alike, the rest refused", files.len());
    // The comparison compares: most of what we forward is good SIP to others too.
    assert!(agreed * 3 > files.len() * 2, "{agreed} of {}", files.len());
}

#[test]
fn libosip2_reads_the_same() {
    compare("libosip2_reads_the_same", "osip", "libosip2", "libosip2-dev");
}

#[test]
fn sofia_reads_the_same() {
    compare("sofia_reads_the_same", "sofia", "sofia-sip-ua", "libsofia-sip-ua-dev");
}
