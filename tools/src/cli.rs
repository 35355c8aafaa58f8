//! The command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use ravelin_contract::config::DurationText;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

#[derive(Debug, Parser)]
#[command(
    name = "ravelin",
    version,
    about = "Session border controller: data plane, control plane and operator's tools",
    after_help = "Exit codes: 0 done or passed, 1 checked and not passed, 2 wrong usage or could not run.",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Control plane and data plane as two processes on this machine
    #[command(
        after_help = "Example:\n  ravelin up --config ravelin.yml --data /var/lib/ravelin\n\nSIGHUP re-reads the file. SIGTERM drains, then ends the calls that are left and stops both; a second one does so at once. RAVELIN_LOG=json in the environment makes log lines JSON."
    )]
    Up(UpArgs),
    /// The data plane alone, from a file or following a control plane
    #[command(
        after_help = "Examples:\n  ravelin edge --config ravelin.yml --data /var/lib/ravelin\n  ravelin edge --control tls://control.example:7443 --data /var/lib/ravelin\n\nSIGHUP re-reads the file. SIGTERM drains, then ends the calls that are left and stops; a second one does so at once."
    )]
    Edge(EdgeArgs),
    /// The control plane alone
    #[command(
        after_help = "Example:\n  ravelin control --config ravelin.yml --data /var/lib/ravelin\n\nSIGHUP re-reads the file. SIGTERM stops."
    )]
    Control(ControlArgs),
    /// Validate a config file: every error with its path and line
    #[command(
        after_help = "Examples:\n  ravelin check ravelin.yml\n  ravelin check --data /var/lib/ravelin ravelin.yml   # certificates and key too"
    )]
    Check(CheckArgs),
    /// Send a config file to the control plane
    #[command(
        after_help = "Examples:\n  ravelin apply --dry-run ravelin.yml\n  ravelin apply ravelin.yml"
    )]
    Apply(ApplyArgs),
    /// Put an earlier config version in force again
    #[command(after_help = "Example:\n  ravelin rollback 12")]
    Rollback(RollbackArgs),
    /// Nodes: edges on other machines
    Node(NodeArgs),
    /// Read each file as one SIP message and judge it
    #[command(
        after_help = "Examples:\n  ravelin parse invite.sip\n  ravelin parse --json *.sip\n\nPrints `FILE accept INVITE`, `FILE accept 200` or `FILE reject 400 REASON`. Exit code 1 if any was rejected."
    )]
    Parse(ParseArgs),
    /// Wipe the keys of calls that a killed edge left in memory
    #[command(
        after_help = "Examples:\n  ravelin forget                                # of every data directory of this user\n  ravelin forget --now --data /var/lib/ravelin  # which gets no edge again\n\nA record whose calls an edge that starts now takes over (for 120 s) stays as it is, unless --now\nsays otherwise; a living edge's always does. What is left of a record has no secrets, and the next\nedge of its data directory ends its calls with it."
    )]
    Forget(ForgetArgs),
    /// What would happen to a call, and why
    #[command(
        after_help = "Example:\n  ravelin explain --config ravelin.yml --realm access --source 127.0.1.7 --to sip:911@sbc.example"
    )]
    Explain(ExplainArgs),
    /// Sign, verify and make certificates offline
    Stir(crate::stir::StirArgs),
    /// Check and export the hash-chained audit log
    Audit(AuditArgs),
    /// Calls that are up now
    #[command(after_help = "Examples:\n  ravelin calls\n  ravelin calls --json | jq .from")]
    Calls(CallsArgs),
    /// Trunks, their state and load
    #[command(after_help = "Example:\n  ravelin trunks")]
    Trunks(LiveArgs),
    /// The messages of one call as a ladder
    #[command(
        after_help = "Examples:\n  ravelin trace --call-id 6f1c0a@192.0.2.1\n  ravelin trace --call-id 6f1c0a@192.0.2.1 --pcap call.pcap   # needs edge.limits.capture_bytes"
    )]
    Trace(TraceArgs),
    /// Check the settings of Kari's Law and RAY BAUM'S Act
    Verify(crate::compliance::args::VerifyArgs),
    /// Monthly reports of emergency calls
    Report(crate::compliance::args::ReportArgs),
    /// Test SOC 2 controls and write the audit package
    Soc2(crate::compliance::soc2::args::Soc2Args),
    /// Place a demonstration call with audio, and a 911 call, through a running Ravelin
    #[command(
        after_help = "Example:\n  ravelin demo --config ravelin.yml\n\nThe built-in test agent plays the caller and the trunks of the config on their own addresses,\nwhich must be addresses of this machine."
    )]
    Demo(DemoArgs),
    /// Send RTP over many streams at a fixed rate and check what comes out at the other end
    #[command(
        after_help = "Examples:\n  ravelin load --from 127.0.0.1:20000 --to 127.0.0.1:30000 --streams 100 --rate 20000\n  ravelin load --plan streams.json --via frames --rate 100000 --seconds 10 --core 0 --json\n\nEach packet carries its stream, number, time and a pattern; every octet is checked on arrival.\nExit code 1 if any packet was lost, doubled, changed or came out in the wrong place.\n\
A plan is a JSON object. A side without netns is this network namespace; interface and next_hop\n(the hardware address that frames go to) are for frames and xdp; arrives.from may be left out:\n  \
{\"sides\": [{\"netns\": \"a\", \"interface\": \"a0\", \"next_hop\": \"02:00:5e:00:00:01\"},\n             \
{\"netns\": \"b\", \"interface\": \"b0\", \"next_hop\": \"02:00:5e:00:00:02\"}],\n   \
\"streams\": [{\"side\": 0, \"from\": \"192.0.2.1:6000\", \"to\": \"198.51.100.1:7000\",\n               \
\"arrives\": {\"side\": 1, \"at\": \"198.51.100.1:7000\", \"from\": \"192.0.2.1:6000\"}}]}"
    )]
    Load(LoadArgs),
}

#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// Config file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Data directory: store, audit log, certificates, sockets
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    /// How long a stop waits for calls to end by themselves before it ends them
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) drain_within: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct ControlArgs {
    /// Config file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Data directory: store, certificates, sockets
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct EdgeArgs {
    /// Config file (YAML); with --control it serves the first start only
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory: snapshots, audit log, certificates, sockets
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    /// Follow this control plane: unix:PATH or tls://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub(crate) control: Option<String>,
    /// How long a stop waits for calls to end by themselves before it ends them
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) drain_within: Duration,
}

/// Longest drain: a typing error must not keep a node from stopping for days.
const DRAIN_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A duration as the config file writes it.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = DurationText(text.to_owned()).parse()?;
    if duration > DRAIN_LONGEST {
        return Err("at most 24h".to_owned());
    }
    Ok(duration)
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Config file (YAML)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Also check the certificates and the key that the file names, in this data directory
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// One JSON object per error
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ForgetArgs {
    /// Only what edges with this data directory left
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Also what an edge that starts now would take over
    #[arg(long, requires = "data")]
    pub(crate) now: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ParseArgs {
    /// Files with one SIP message each; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// One JSON object per file
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Config file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Realm that the call comes from
    #[arg(long)]
    pub(crate) realm: String,
    /// Source address of the caller's packets
    #[arg(long, value_name = "IP")]
    pub(crate) source: IpAddr,
    /// Called URI (sip, sips, tel, urn) or number
    #[arg(long, value_name = "URI")]
    pub(crate) to: String,
    /// Calling URI or number
    #[arg(long, value_name = "URI")]
    pub(crate) from: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Issue the certificate by which an edge on another machine proves its name
    #[command(
        after_help = "Example:\n  ravelin node add edge-2 --data /var/lib/ravelin --out edge-2\n  scp edge-2/* edge-2.example:/var/lib/ravelin/certs/\n  # there: ravelin edge --config edge-2.yml --control tls://control.example:7443 --data /var/lib/ravelin\n\nThe control plane listens for such edges at `control.link.listen`. It may be running."
    )]
    Add(NodeAddArgs),
}

#[derive(Args, Debug)]
pub(crate) struct NodeAddArgs {
    /// Name of the node, as `node` in its config
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Data directory of the control plane
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    /// Where to write `link.pem`, `link.key` and `link-ca.pem`; made if it is missing
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check the hash chain and say where it breaks
    #[command(
        after_help = "Examples:\n  ravelin audit verify --data /var/lib/ravelin\n  ravelin audit verify --url http://127.0.0.1:8080   # what the control plane has stored"
    )]
    Verify(AuditVerifyArgs),
    /// Write the records as JSON lines or CSV
    #[command(
        after_help = "Examples:\n  ravelin audit export --data /var/lib/ravelin > audit.jsonl\n  ravelin audit export --format csv --data /var/lib/ravelin > audit.csv"
    )]
    Export(AuditExportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AuditVerifyArgs {
    /// Data directory of the edge
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    /// Ask this control plane to check what it has stored, in place of the files
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// API token; else RAVELIN_TOKEN, else DIR/admin.token
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AuditExportArgs {
    /// Data directory of the edge
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(crate) format: ExportFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object per record
    Jsonl,
    /// One line per record: seq, time, type, kind, severity, call, entry, hash
    Csv,
}

/// Where the control plane is and who asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApiArgs {
    /// Control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    pub(crate) url: String,
    /// API token; else RAVELIN_TOKEN, else DIR/admin.token
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Data directory with admin.token
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// Config file (YAML)
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only validate it there
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// Version to go back to
    #[arg(value_name = "VERSION")]
    pub(crate) version: u64,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LiveArgs {
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CallsArgs {
    /// One call, with the quality of its streams: Ravelin's own id of it, or a Call-ID of either
    /// leg while it lasts
    #[arg(long, value_name = "ID")]
    pub(crate) call: Option<String>,
    #[command(flatten)]
    pub(crate) live: LiveArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TraceArgs {
    /// Call-ID of either leg, or Ravelin's own id of the call
    #[arg(long, value_name = "ID")]
    pub(crate) call_id: String,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    /// One JSON object per message
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the messages to this file instead, as a capture; edge.limits.capture_bytes keeps them
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) pcap: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// The config that Ravelin runs on
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Seconds of audio
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) seconds: u32,
    /// One JSON object per call
    #[arg(long)]
    pub(crate) json: bool,
}

/// Longest run of the load generator.
const LOAD_LONGEST: Duration = Duration::from_secs(3_600);

fn load_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(length) if !length.is_zero() && length <= LOAD_LONGEST => Ok(length),
        _ => Err("more than 0 and at most 3600".to_owned()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// Streams, as a JSON file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "arrive", "streams"])]
    pub(crate) plan: Option<PathBuf>,
    /// Without a plan: where the first stream is sent from; the next ones from every second port
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) from: Option<SocketAddr>,
    /// Where the first stream is sent to
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) to: Option<SocketAddr>,
    /// Where the first stream comes out; absent: where it is sent to
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) arrive: Option<SocketAddr>,
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub(crate) streams: u16,
    /// Packets a second, of all streams together
    #[arg(long, value_name = "PPS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,
    /// Length of the run
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = load_seconds)]
    pub(crate) seconds: Duration,
    /// How long to wait for packets after the last arrival
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = load_seconds)]
    pub(crate) tail: Duration,
    /// Octets behind the RTP header; 160 is 20 ms of G.711
    #[arg(long, value_name = "OCTETS", default_value_t = 160, value_parser = clap::value_parser!(u16).range(i64::from(crate::load::PAYLOAD_MIN_BYTES)..=i64::from(crate::load::PAYLOAD_MAX_BYTES)))]
    pub(crate) payload_bytes: u16,
    /// RTP payload type
    #[arg(long, value_name = "TYPE", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=127))]
    pub(crate) payload_type: u8,
    #[arg(long, value_enum, default_value = "sockets")]
    pub(crate) via: Via,
    /// Core to run on
    #[arg(long, value_name = "NUMBER")]
    pub(crate) core: Option<usize>,
    /// Pause for 60 ms after each 400 ms of sending, so that the kernel never takes the core away in
    /// between from a thread of real-time priority
    #[arg(long)]
    pub(crate) rests: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What packets of the load generator travel by.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Via {
    /// UDP sockets; needs no privilege
    Sockets,
    /// Ethernet frames past the IP stack, several times faster; needs CAP_NET_RAW and a plan
    Frames,
    /// Live frames of XDP, made and checked in the kernel; IPv4; needs CAP_BPF, CAP_NET_ADMIN and a plan
    Xdp,
}

impl Via {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Frames => "frames",
            Self::Xdp => "xdp",
        }
    }
}
