//! `ravelin stir verify`.

use std::path::PathBuf;

use clap::Args;
use ravelin_stir::{
    limits::{DIV_CHAIN_DEFAULT, DIV_CHAIN_MAX, WINDOW_FUTURE_DEFAULT_S, WINDOW_PAST_DEFAULT_S},
    outcome,
    tn::UserIsTn,
    trust::{Trust, TrustBuilder},
    verify::{DestMatch, Profile, Verdict, VerifyRequest, verify},
};
use serde::Serialize;

use super::{PlanArg, message, read, time};
use crate::{
    exit::{Failure, Outcome},
    print,
};

/// Where trust comes from; shared with `cert check`.
#[derive(Args, Debug)]
pub(super) struct TrustArgs {
    /// Trust anchors: PEM certificates of the STI-CAs (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Vec<PathBuf>,
    /// Certificate revocation list, PEM or DER (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(super) crl: Vec<PathBuf>,
    /// Certificates that sign revocation lists (repeatable; default: those of --ca)
    #[arg(long, value_name = "FILE")]
    pub(super) crl_anchor: Vec<PathBuf>,
    /// Accept no certificate when the revocation list is missing or stale (default: stale for up to
    /// 7 days is accepted)
    #[arg(long)]
    pub(super) crl_hard: bool,
    /// Time of the verification: seconds since 1970-01-01, or RFC 3339 (default: now)
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(super) at: Option<u64>,
}

impl TrustArgs {
    pub(super) fn now_unix(&self) -> u64 {
        self.at.unwrap_or_else(time::now_unix)
    }

    /// Anchors and revocation lists, without chains.
    pub(super) fn builder(&self) -> Result<TrustBuilder, Failure> {
        let mut builder = TrustBuilder::default();
        for path in &self.ca {
            builder.anchors_pem(&read(path)?).map_err(|_| no_certificate(path))?;
        }
        // The policy administrator's list has an anchor of its own (ST-45); where none is given, a
        // list can only be of the CAs themselves.
        let of_lists = if self.crl_anchor.is_empty() { &self.ca } else { &self.crl_anchor };
        for path in of_lists.iter().filter(|_| !self.crl.is_empty()) {
            builder.crl_anchors_pem(&read(path)?).map_err(|_| no_certificate(path))?;
        }
        for path in &self.crl {
            builder
                .crl(&read(path)?)
                .map_err(|error| Failure::cannot_run(format!("{}: {error}", path.display())))?;
        }
        builder.crl_hard(self.crl_hard);
        Ok(builder)
    }

    /// Builds, and says on standard error which revocation lists are not used.
    pub(super) fn build(&self, builder: TrustBuilder) -> Trust {
        let (trust, refused) = builder.build(self.now_unix());
        for error in refused {
            eprintln!("ravelin: a revocation list is not used: {error}");
        }
        trust
    }
}

fn no_certificate(path: &std::path::Path) -> Failure {
    Failure::cannot_run(format!("{} has no certificate in PEM that parses", path.display()))
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Files with one whole SIP request each; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Certificate chain to use in place of fetching, for every URL or for one (repeatable; of
    /// several files without URL, any may be the signer's and the others complete its chain)
    #[arg(long, value_name = "[URL=]FILE")]
    cert: Vec<String>,
    /// Oldest iat accepted, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = WINDOW_PAST_DEFAULT_S)]
    window: u32,
    /// Furthest future iat accepted, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = WINDOW_FUTURE_DEFAULT_S)]
    future: u32,
    /// Oldest iat accepted of the inner tokens of a diverted call, seconds (default: as --window)
    #[arg(long, value_name = "SECONDS")]
    inner_window: Option<u32>,
    /// Refuse a Date header that does not agree with iat
    #[arg(long)]
    date_strict: bool,
    /// What the called number is compared with
    #[arg(long, value_enum, default_value = "to-or-ruri")]
    dest: DestArg,
    /// Take the calling number from From even if there is a P-Asserted-Identity
    #[arg(long)]
    ignore_pai: bool,
    /// Take the user part of a SIP URI as a number only with user=phone
    #[arg(long)]
    user_phone: bool,
    /// How numbers of the message without + are completed, as number_plan of a trunk
    #[arg(long, value_enum, default_value = "nanp")]
    plan: PlanArg,
    /// Refuse SHAKEN tokens without the ppt parameter
    #[arg(long)]
    require_ppt: bool,
    /// Accept unknown members in the JOSE header (never crit)
    #[arg(long)]
    lax_jose: bool,
    /// With div tokens that form no complete chain, judge the other tokens alone
    #[arg(long)]
    ignore_incomplete_div: bool,
    /// Longest chain of div tokens
    #[arg(long, value_name = "N", default_value_t = DIV_CHAIN_DEFAULT, value_parser = clap::value_parser!(u8).range(1..=i64::from(DIV_CHAIN_MAX)))]
    div_max: u8,
    /// One JSON object per file
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DestArg {
    To,
    Ruri,
    ToOrRuri,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    outcome: &'a str,
    cause: Option<u16>,
    verstat: Option<&'a str>,
    attest: Option<&'a str>,
    origid: Option<&'a str>,
    reason: &'a str,
    x5u: Option<&'a str>,
    spc: Option<&'a str>,
    /// Seconds from `iat` to the time of the verification.
    age: Option<i64>,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<Outcome, Failure> {
    if args.trust.ca.is_empty() {
        eprintln!("ravelin: no --ca, so no certificate is trusted");
    }
    let trusts = args.trusts()?;
    let profile = args.profile();
    let mut passed = true;
    let mut failure = None;
    for path in &args.files {
        let name = path.to_string_lossy();
        let verdict = read(path).and_then(|bytes| args.judge(&trusts, &profile, &name, &bytes));
        match verdict {
            Ok(verdict) => {
                passed &= verdict.outcome() == outcome::Outcome::Passed;
                show(&name, &verdict, args.json)?;
            }
            Err(error) => {
                if let Some(before) = failure.replace(error) {
                    eprintln!("ravelin: {before}");
                }
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(Outcome::of(passed)),
    }
}

impl VerifyArgs {
    /// What tokens are judged by: one table, or one for each file that may be the signer's.
    fn trusts(&self) -> Result<Vec<Trust>, Failure> {
        let (mut named, mut plain) = (Vec::new(), Vec::new());
        for cert in &self.cert {
            let (url, path) = split_cert(cert);
            match url {
                Some(url) => named.push((url, read(&path)?)),
                None => plain.push(read(&path)?),
            }
        }
        let build = |any: Option<&[u8]>| {
            let mut builder = self.trust.builder()?;
            for (url, body) in &named {
                builder.chain_pem(url, body);
            }
            if let Some(body) = any {
                builder.chain_for_any_url(body);
            }
            Ok(self.trust.build(builder))
        };
        match plain.as_slice() {
            [] => Ok(vec![build(None)?]),
            [one] => Ok(vec![build(Some(one))?]),
            several => (0..several.len())
                .map(|first| {
                    let mut bodies = several.to_vec();
                    bodies.swap(0, first);
                    // DER holds one certificate and cannot be joined to anything.
                    let is_der = |body: &Vec<u8>| body.first() == Some(&0x30);
                    let own = bodies.first().is_some_and(is_der);
                    let mut at = 0;
                    bodies.retain(|body| {
                        at += 1;
                        at == 1 || !own && !is_der(body)
                    });
                    build(Some(&bodies.join(&b'\n')))
                })
                .collect(),
        }
    }

    fn profile(&self) -> Profile {
        Profile {
            window_past_s: self.window,
            window_future_s: self.future,
            window_inner_s: self.inner_window.unwrap_or(self.window),
            date_strict: self.date_strict,
            dest_match: match self.dest {
                DestArg::To => DestMatch::To,
                DestArg::Ruri => DestMatch::RequestUri,
                DestArg::ToOrRuri => DestMatch::ToOrRequestUri,
            },
            ppt_param_required: self.require_ppt,
            jose_strict: !self.lax_jose,
            div_incomplete_ignored: self.ignore_incomplete_div,
            div_max: self.div_max,
        }
    }

    fn judge(
        &self,
        trusts: &[Trust],
        profile: &Profile,
        name: &str,
        bytes: &[u8],
    ) -> Result<Verdict, Failure> {
        let rules = message::Rules {
            user_is_tn: if self.user_phone {
                UserIsTn::WithUserPhone
            } else {
                UserIsTn::IfItLooksSo
            },
            plan: self.plan.plan(),
            asserted: !self.ignore_pai,
        };
        let request = message::read(bytes, rules)
            .ok_or_else(|| Failure::cannot_run(format!("{name} is not a SIP request")))?;
        if let Some(reason) = request.refused {
            eprintln!("ravelin: {name}: the data plane refuses this message: {reason}");
        }
        let identities: Vec<&[u8]> = request.identities.iter().map(Vec::as_slice).collect();
        let request = VerifyRequest {
            identities: &identities,
            orig: &request.orig,
            to: &request.to,
            request_uri: &request.request_uri,
            date: request.date,
            media_keys: request.media_keys.as_ref(),
            now_unix: self.trust.now_unix(),
            profile,
        };
        // Of several certificates the one that fits speaks, else the first that is one at all.
        let rank = |verdict: &Verdict| match verdict.outcome() {
            outcome::Outcome::Passed => 0,
            outcome::Outcome::BadCred => 2,
            _ => 1,
        };
        let verdicts = trusts.iter().map(|trust| verify(trust, &request));
        let best = verdicts.min_by_key(rank);
        Ok(best.unwrap_or_else(|| Verdict::of(outcome::Reason::CertificateUnavailable)))
    }
}

fn show(name: &str, verdict: &Verdict, json: bool) -> Result<(), Failure> {
    let passed = verdict.outcome() == outcome::Outcome::Passed;
    let line = Line {
        file: name,
        outcome: verdict.outcome().label(),
        cause: verdict.cause(),
        verstat: verdict.verstat().map(outcome::Verstat::as_str),
        // ST-66: an attestation that nobody vouches for is none.
        attest: verdict.attest.filter(|_| passed).map(ravelin_stir::sign::Attest::as_str),
        origid: verdict.origid.as_deref(),
        reason: verdict.reason.label(),
        x5u: verdict.x5u.as_deref(),
        spc: verdict.spc.as_deref(),
        age: verdict.iat_skew_s,
    };
    if json {
        return print::json(&line);
    }
    let mut text = format!("{} {} reason={}", print::plain(name), line.outcome, line.reason);
    let mut add = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            text.push_str(&format!(" {key}={}", print::plain(value)));
        }
    };
    let cause = line.cause.map(|cause| cause.to_string());
    add("cause", cause.as_deref());
    add("verstat", line.verstat);
    add("attest", line.attest);
    add("origid", line.origid);
    add("spc", line.spc);
    print::line(&text)
}

/// `URL=FILE` or `FILE`. Both may contain `=`: the split that names a file is the right one.
fn split_cert(text: &str) -> (Option<&str>, PathBuf) {
    if !text.contains("://") {
        return (None, text.into());
    }
    let splits = || text.match_indices('=').map(|(at, _)| text.split_at(at));
    let found =
        splits().find(|(_, file)| PathBuf::from(&file[1..]).is_file()).or_else(|| splits().next());
    match found {
        Some((url, file)) => (Some(url), file[1..].into()),
        None => (None, text.into()),
    }
}
