//! Which streams a run has: from a file, or a row of ports.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{cli::LoadArgs, exit::Failure};

/// Streams of one run.
pub(super) const STREAMS_MAX: usize = 65_536;

/// Everything that is sent and where it should come out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    /// Where packets are sent from and received.
    pub(super) sides: Vec<Side>,
    pub(super) streams: Vec<Stream>,
}

/// One network namespace, or this one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Side {
    /// Name as `ip netns` knows it; absent: that of this process.
    pub(super) netns: Option<String>,
    /// For whole frames: the interface, and the hardware address of the next hop.
    pub(super) interface: Option<String>,
    pub(super) next_hop: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stream {
    /// Index of the side that sends.
    pub(super) side: usize,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) arrives: Arrival,
}

/// Where a stream comes out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arrival {
    pub(super) side: usize,
    pub(super) at: SocketAddr,
    /// The only source that it may have then; absent: any.
    pub(super) from: Option<SocketAddr>,
}

/// The plan that the command line asks for.
pub(super) fn read(args: &LoadArgs) -> Result<Plan, Failure> {
    let plan = match &args.plan {
        Some(path) => from_file(path)?,
        None => row(args)?,
    };
    check(&plan).map_err(Failure::cannot_run)?;
    Ok(plan)
}

fn from_file(path: &Path) -> Result<Plan, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::cannot_run(format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::cannot_run(format!("{}: {error}", path.display())))
}

/// Streams on every second port from the given ones on, as RTP has them.
fn row(args: &LoadArgs) -> Result<Plan, Failure> {
    let (Some(from), Some(to)) = (args.from, args.to) else {
        return Err(Failure::cannot_run("give --plan FILE, or --from and --to"));
    };
    let at = args.arrive.unwrap_or(to);
    let nth = |first: SocketAddr, number: u16| {
        let port = number.checked_mul(2).and_then(|offset| first.port().checked_add(offset));
        port.map(|port| SocketAddr::new(first.ip(), port))
            .ok_or_else(|| Failure::cannot_run(format!("--streams: no port left above {first}")))
    };
    let streams = (0..args.streams)
        .map(|number| {
            Ok(Stream {
                side: 0,
                from: nth(from, number)?,
                to: nth(to, number)?,
                arrives: Arrival { side: 0, at: nth(at, number)?, from: None },
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Plan { sides: vec![Side { netns: None, interface: None, next_hop: None }], streams })
}

fn check(plan: &Plan) -> Result<(), String> {
    let count = plan.streams.len();
    if count == 0 || count > STREAMS_MAX {
        return Err(format!("{count} streams: 1 to {STREAMS_MAX} can be run"));
    }
    let mut ways = BTreeSet::new();
    for (number, stream) in plan.streams.iter().enumerate() {
        for side in [stream.side, stream.arrives.side] {
            if side >= plan.sides.len() {
                return Err(format!("streams[{number}]: there is no side {side}"));
            }
        }
        if stream.from.is_ipv4() != stream.to.is_ipv4() {
            return Err(format!("streams[{number}]: from and to are of different families"));
        }
        if !ways.insert((stream.side, stream.from, stream.to)) {
            return Err(format!("streams[{number}]: the same from and to as an earlier one"));
        }
    }
    for (number, side) in plan.sides.iter().enumerate() {
        if let Some(name) = side.netns.as_deref()
            && (name.is_empty() || name.contains('/') || name == "..")
        {
            return Err(format!("sides[{number}]: netns {name:?} is no name"));
        }
        if let Some(hop) = side.next_hop.as_deref()
            && hardware(hop).is_none()
        {
            return Err(format!(
                "sides[{number}]: next_hop {hop:?} is no hardware address, such as 02:00:5e:00:00:01"
            ));
        }
    }
    Ok(())
}

impl Side {
    /// The file of the side's network namespace.
    pub(super) fn namespace(&self) -> Option<PathBuf> {
        self.netns.as_ref().map(|name| Path::new("/run/netns").join(name))
    }

    /// Interface and next hop, for frames.
    pub(super) fn link(&self) -> Result<(&str, [u8; 6]), Failure> {
        let interface = self.interface.as_deref();
        let hop = self.next_hop.as_deref().and_then(hardware);
        match (interface, hop) {
            (Some(interface), Some(hop)) => Ok((interface, hop)),
            _ => Err(Failure::cannot_run(
                "--via frames and --via xdp need a --plan whose sides name interface and next_hop",
            )),
        }
    }
}

fn hardware(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

impl Plan {
    /// Whether any stream arrives over IPv6 at a side.
    pub(super) fn family(&self, side: usize) -> Option<bool> {
        let mut families = self.streams.iter().flat_map(|stream| {
            [(stream.side, stream.from), (stream.arrives.side, stream.arrives.at)]
        });
        families.find(|(at, _)| *at == side).map(|(_, addr)| matches!(addr.ip(), IpAddr::V6(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        let plan: Plan = serde_json::from_str(text).map_err(|error| error.to_string())?;
        check(&plan).map(|()| plan)
    }

    const STREAM: &str = r#"{"side":0,"from":"127.0.0.1:2","to":"127.0.0.1:4","arrives":{"side":0,"at":"127.0.0.1:6"}}"#;

    #[test]
    fn a_plan_that_cannot_be_run_says_why() {
        let text =
            |sides: &str, streams: &str| format!(r#"{{"sides":[{sides}],"streams":[{streams}]}}"#);
        assert!(plan(&text("{}", STREAM)).is_ok());
        for (sides, streams, say) in [
            ("{}", "", "0 streams"),
            ("", STREAM, "no side 0"),
            ("{}", &format!("{STREAM},{STREAM}"), "the same from and to"),
            (r#"{"netns":"../x"}"#, STREAM, "is no name"),
            (r#"{"nets":"x"}"#, STREAM, "unknown field"),
            (r#"{"next_hop":"192.0.2.1"}"#, STREAM, "\"192.0.2.1\" is no hardware address"),
            ("{}", &STREAM.replace(":4\"", "\"").replace("127.0.0.1\"", "[::1]:4\""), "families"),
        ] {
            let error = plan(&text(sides, streams)).expect_err(say);
            assert!(error.contains(say), "{error}");
        }
    }

    #[test]
    fn the_plan_of_the_help_text_can_be_run() {
        use clap::CommandFactory;
        let mut all = crate::cli::Cli::command();
        let load = all.find_subcommand_mut("load").expect("the command");
        let help = load.render_long_help().to_string();
        let (start, end) = (help.find('{').expect("a plan"), help.rfind('}').expect("its end"));
        let plan = plan(&help[start..=end]).expect("a plan");
        assert!(plan.sides.len() == 2 && plan.sides.iter().all(|side| side.link().is_ok()));
    }

    #[test]
    fn hardware_addresses_have_six_octets() {
        assert_eq!(hardware("02:00:5e:00:00:ff"), Some([2, 0, 0x5e, 0, 0, 0xff]));
        for text in ["", "02:00:5e:00:00", "02:00:5e:00:00:ff:00", "02:00:5e:00:00:fg"] {
            assert_eq!(hardware(text), None, "{text}");
        }
    }
}
