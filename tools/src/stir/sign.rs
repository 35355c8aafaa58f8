//! `ravelin stir sign`.

use std::{fs::File, io::Read as _, path::PathBuf};

use clap::Args;
use ravelin_stir::{
    sign::{Attest, SignRequest, Signer, uuid_v4},
    tn::{NumberPlan, Party, UserIsTn, canonicalise, party, party_in},
};
use ravelin_wire::sip::{Framing, HeaderName, Message, NameAddr, parse_date, write_date};
use serde::Serialize;

use super::{PlanArg, read, time};
use crate::{
    exit::{Failure, Outcome},
    print,
};

/// A Date header further off than this is not signed over (ST-35).
const DATE_TOLERANCE_S: u64 = 60;

#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    /// Certificate chain, PEM, leaf first. Without it key and URL are taken as they are
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key, PEM (PKCS #8 or SEC 1), P-256
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// URL that the chain is published under
    #[arg(long, value_name = "URL")]
    x5u: String,
    /// Attestation level
    #[arg(long, value_enum)]
    attest: AttestArg,
    /// Calling number or URI
    #[arg(
        long,
        value_name = "TN|URI",
        required_unless_present = "message",
        conflicts_with = "message"
    )]
    orig: Option<String>,
    /// Called number or URI (repeatable)
    #[arg(
        long,
        value_name = "TN|URI",
        required_unless_present = "message",
        conflicts_with = "message"
    )]
    dest: Vec<String>,
    /// Time of the token: seconds since 1970-01-01, or RFC 3339 (default: the message's Date, else
    /// now)
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    iat: Option<u64>,
    /// Origination id (default: a random UUID)
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    origid: Option<[u8; 16]>,
    /// Sign this SIP request (P-Asserted-Identity or From, To) and print it with the header added
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
    /// How numbers of the message without + are completed, as number_plan of a trunk
    #[arg(long, value_enum, default_value = "nanp")]
    plan: PlanArg,
    /// One JSON object: {"identity": ...}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum AttestArg {
    #[value(name = "A", alias = "a")]
    A,
    #[value(name = "B", alias = "b")]
    B,
    #[value(name = "C", alias = "c")]
    C,
}

#[derive(Serialize)]
struct Line<'a> {
    identity: &'a str,
}

pub(crate) fn run(args: &SignArgs) -> Result<Outcome, Failure> {
    let message = args.message.as_ref().map(|path| read(path)).transpose()?;
    let message = match &message {
        Some(bytes) => Some(Message::parse(bytes, Framing::Datagram).map_err(|error| {
            Failure::cannot_run(format!("the message does not parse: {}", error.reason()))
        })?),
        None => None,
    };
    let (orig, dest) = match &message {
        Some(message) => {
            let plan = args.plan.plan();
            (calling(message, &plan)?, vec![called(message, &plan)?])
        }
        None => {
            let orig = args.orig.as_deref().unwrap_or_default();
            let dest = args.dest.iter().map(|dest| identity(dest)).collect::<Result<_, _>>()?;
            (identity(orig)?, dest)
        }
    };
    let now = time::now_unix();
    let date = message.as_ref().and_then(|message| message.header(HeaderName::Date));
    let date = date.and_then(parse_date);
    let iat = args.iat.or(date).unwrap_or(now);
    if let (Some(date), Some(iat)) = (date, args.iat)
        && date.abs_diff(iat) > DATE_TOLERANCE_S
    {
        return Err(Failure::cannot_run(
            "the message's Date is more than 60 s away from --iat: correct one of them",
        ));
    }
    let request = SignRequest {
        attest: match args.attest {
            AttestArg::A => Attest::A,
            AttestArg::B => Attest::B,
            AttestArg::C => Attest::C,
        },
        orig,
        dest: dest.into_iter().collect(),
        iat,
        origid: args.origid.map_or_else(random_uuid, Ok)?,
    };
    let key = read(&args.key)?;
    let signer = match &args.cert {
        Some(cert) => Signer::load(&read(cert)?, &key, &args.x5u, iat),
        None => Signer::without_certificate(&key, &args.x5u),
    }
    .map_err(|error| Failure::cannot_run(error.to_string()))?;
    let mut value = Vec::new();
    signer
        .sign(&request, &mut value)
        .map_err(|error| Failure::cannot_run(format!("not signed: {error}")))?;
    let identity = String::from_utf8_lossy(&value);
    match &message {
        Some(message) if !args.json => show_signed(message, &identity, date.is_none(), iat)?,
        _ if args.json => print::json(&Line { identity: &identity })?,
        _ => print::line(&identity)?,
    }
    Ok(Outcome::Passed)
}

/// A number in any spelling, or a URI.
fn identity(text: &str) -> Result<Party, Failure> {
    if let Ok(tn) = canonicalise(text.as_bytes()) {
        return Ok(tn.into());
    }
    party(text.as_bytes(), UserIsTn::IfItLooksSo).ok_or_else(|| {
        Failure::cannot_run(format!("{} is neither a number nor a URI", print::plain(text)))
    })
}

/// P-Asserted-Identity, else From (ST-17); a number before a URI.
fn calling(message: &Message<'_>, plan: &NumberPlan<'_>) -> Result<Party, Failure> {
    let asserted = message
        .values(HeaderName::PAssertedIdentity)
        .filter_map(NameAddr::parse)
        .filter_map(|address| party_in(address.uri, UserIsTn::IfItLooksSo, plan));
    let from = party_in(message.from().uri, UserIsTn::IfItLooksSo, plan);
    let mut found: Vec<Party> = asserted.chain(from).collect();
    found.sort_by_key(|party| matches!(party, Party::Uri(_)));
    found
        .into_iter()
        .next()
        .ok_or_else(|| Failure::cannot_run("the message has no calling party that can be signed"))
}

fn called(message: &Message<'_>, plan: &NumberPlan<'_>) -> Result<Party, Failure> {
    party_in(message.to().uri, UserIsTn::IfItLooksSo, plan)
        .ok_or_else(|| Failure::cannot_run("the message's To cannot be signed"))
}

/// The message with an Identity header, and a Date header if it had none, behind its own headers.
fn show_signed(
    message: &Message<'_>,
    identity: &str,
    add_date: bool,
    iat: u64,
) -> Result<(), Failure> {
    let raw = message.raw();
    let end = raw
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or_else(|| Failure::cannot_run("the message has no end of its headers"))?;
    let (head, body) = raw.split_at(end + 2);
    let mut signed = head.to_vec();
    if add_date {
        signed.extend_from_slice(b"Date: ");
        write_date(iat, &mut signed);
        signed.extend_from_slice(b"\r\n");
    }
    signed.extend_from_slice(format!("Identity: {identity}\r\n").as_bytes());
    signed.extend_from_slice(body);
    use std::io::Write as _;
    std::io::stdout()
        .lock()
        .write_all(&signed)
        .map_err(|error| Failure::cannot_run(format!("standard output: {error}")))
}

/// 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &str) -> Result<[u8; 16], String> {
    let wrong = || "give a UUID such as 123e4567-e89b-12d3-a456-426655440000".to_owned();
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if dashes != [8, 13, 18, 23] || digits.len() != 32 {
        return Err(wrong());
    }
    u128::from_str_radix(&digits, 16).map(u128::to_be_bytes).map_err(|_| wrong())
}

fn random_uuid() -> Result<[u8; 16], Failure> {
    let mut octets = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut octets))
        .map_err(|error| Failure::cannot_run(format!("/dev/urandom: {error}")))?;
    Ok(uuid_v4(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids() {
        let octets = uuid("123e4567-e89b-12d3-a456-426655440000").unwrap();
        assert_eq!(octets[..4], [0x12, 0x3e, 0x45, 0x67]);
        for bad in ["", "123e4567e89b12d3a456426655440000", "x23e4567-e89b-12d3-a456-426655440000"]
        {
            assert!(uuid(bad).is_err(), "{bad}");
        }
        assert_ne!(random_uuid().unwrap(), random_uuid().unwrap());
    }
}
