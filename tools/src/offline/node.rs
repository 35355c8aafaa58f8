//! `ravelin node`: what an edge on another machine needs to reach the control plane.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _};

use ravelin_control::certs;

use crate::{
    cli::NodeAddArgs,
    exit::{Failure, Outcome},
    print,
};

pub(crate) fn add(args: &NodeAddArgs) -> Result<Outcome, Failure> {
    let authority = args.data.join("certs");
    if !authority.join("link-ca.key").exists() {
        return Err(Failure::cannot_run(format!(
            "{}: no link-ca.key there; --data names the control plane's data directory, which makes it at its first start",
            authority.display()
        )));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.out)
        .map_err(|error| Failure::cannot_run(format!("--out {}: {error}", args.out.display())))?;
    let issued = certs::issue_node(&authority, &args.name, &args.out)
        .map_err(|error| Failure::cannot_run(error.to_string()))?;
    for (path, what) in [
        (issued.certificate, "certificate"),
        (issued.key, "key"),
        (issued.ca, "certificate authority"),
    ] {
        print::line(&format!("{} {what}", path.display()))?;
    }
    Ok(Outcome::Passed)
}
