//! `ravelin explain`: what would happen to a call, decided by the code that decides on calls.

use ravelin_edge::settings;

use crate::{
    cli::ExplainArgs,
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn run(args: &ExplainArgs) -> Result<Outcome, Failure> {
    let text = settings::read_document(&args.config).map_err(Failure::cannot_run)?;
    let compiled = ravelin_policy::compile(&text, 1).map_err(|errors| {
        let errors = settings::one_line(&errors);
        Failure::cannot_run(format!("{} is not valid: {errors}", args.config.display()))
    })?;
    let snapshot = compiled.snapshot;
    if snapshot.realm_by_id(&args.realm).is_none() {
        let known: Vec<&str> = snapshot.realms.iter().map(|realm| realm.id.as_str()).collect();
        let (realm, known) = (&args.realm, known.join(", "));
        return Err(Failure::cannot_run(format!("no realm {realm:?}; the config has: {known}")));
    }
    let from = args.from.as_deref();
    let found = ravelin_policy::explain(&snapshot, &args.realm, args.source, &args.to, from);
    if args.json {
        print::json(&found)?;
        return Ok(Outcome::Passed);
    }
    let none = || "-".to_owned();
    let trunks = if found.trunks.is_empty() { none() } else { found.trunks.join(", ") };
    for (key, value) in [
        ("class", found.class),
        ("site", found.site.unwrap_or_else(none)),
        ("location", found.location.unwrap_or_else(none)),
        ("elin", found.elin.unwrap_or_else(none)),
        ("psap", found.psap.unwrap_or_else(none)),
        ("trunks", trunks),
        ("attestation", found.attestation.unwrap_or_else(none)),
        ("rule", found.rule.unwrap_or_else(none)),
        ("snapshot", found.snapshot.to_string()),
    ] {
        print::line(&print::plain(&format!("{key:<12} {value}")))?;
    }
    for reason in found.reasons {
        print::line(&print::plain(&format!("because      {reason}")))?;
    }
    Ok(Outcome::Passed)
}
