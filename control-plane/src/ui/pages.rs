//! The pages behind the login.

use askama::Template;
use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use super::{Frame, login::Person, render};
use crate::{
    api::{
        App,
        auth::{ATTEST, AUDIT, Access, OPERATE},
        body::Query,
        config as api_config, e911 as api_e911,
        error::ApiError,
        live, soc2 as api_soc2,
    },
    clock,
    e911::SiteBody,
    soc2::{self, Control, Report, Status},
    store::{
        configs::{self, VersionSummary},
        query::{self, Cursor, Filter},
        sites::{self as site_table, SiteView},
    },
};

/// Rows of a page.
const ROWS: u32 = 200;
/// Longest document that is shown, in characters.
const DOCUMENT_SHOWN_CHARS: usize = 200_000;

#[derive(Template)]
#[template(path = "table.html")]
struct Table {
    frame: Frame,
    title: &'static str,
    notes: Vec<String>,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    next: Option<String>,
    /// The first cell of a row is a link to this and the cell.
    link: Option<&'static str>,
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn need(person: &Person, access: Access) -> Result<(), ApiError> {
    if access.allows(person.caller.0.role) {
        return Ok(());
    }
    let role = person.caller.0.role.name();
    Err(ApiError::new(StatusCode::FORBIDDEN, format!("the role {role} may not do this")))
}

pub(super) async fn nodes(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
    let active = app.publisher.active();
    let config = match &active {
        Some(active) => format!("Config version {} is in force.", active.version),
        None => "No config is in force.".to_owned(),
    };
    let rows = live::node_views(&app)
        .await?
        .into_iter()
        .map(|node| {
            vec![
                node.node,
                if node.connected { "connected" } else { "not connected" }.to_owned(),
                node.active_version.to_string(),
                node.shards.to_string(),
                node.driver,
                node.software,
                node.stored_seq.to_string(),
                node.chain_breaks.to_string(),
                text(node.last_seen_at),
                text(node.last_error),
            ]
        })
        .collect();
    let page = Table {
        frame: Frame::new(&person, "/", None),
        title: "Nodes",
        notes: vec![config],
        columns: vec![
            "Node",
            "State",
            "Config",
            "Shards",
            "Driver",
            "Software",
            "Records stored",
            "Chain breaks",
            "Last seen",
            "Last error",
        ],
        rows,
        next: None,
        link: None,
    };
    Ok(render(StatusCode::OK, &page))
}

pub(super) async fn calls(State(app): State<App>, person: Person) -> Response {
    let (calls, more, silent) = live::all_calls(&app, ROWS).await;
    let mut notes = Vec::new();
    if more {
        notes.push(format!("The oldest {ROWS} calls; there are more."));
    }
    if !silent.is_empty() {
        notes.push(format!("No answer from: {}.", silent.join(", ")));
    }
    let rows = calls
        .into_iter()
        .map(|call| {
            vec![
                call.id,
                format!("{:?}", call.state).to_lowercase(),
                call.from,
                call.to,
                text(call.inbound_trunk),
                text(call.outbound_trunk),
                call.class,
                text(call.site),
                format!("{} s", call.age_ms / 1_000),
                call.node,
            ]
        })
        .collect();
    let page = Table {
        frame: Frame::new(&person, "/calls", None),
        title: "Calls",
        notes,
        columns: vec![
            "Call",
            "State",
            "From",
            "To",
            "From trunk",
            "To trunk",
            "Class",
            "Site",
            "Age",
            "Node",
        ],
        rows,
        next: None,
        link: Some("/calls/"),
    };
    render(StatusCode::OK, &page)
}

/// One call: the quality of its streams, as it is now or as its record says.
pub(super) async fn call(
    State(app): State<App>,
    Path(id): Path<String>,
    person: Person,
) -> Result<Response, ApiError> {
    let (streams, notes) = live::streams(&app, &id).await?;
    let ms = |value: Option<f64>| value.map(|ms| format!("{ms:.1}")).unwrap_or_default();
    let rows = streams
        .into_iter()
        .map(|stream| {
            let drops: Vec<_> =
                stream.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            vec![
                stream.stream.to_string(),
                format!("{:?}", stream.from).to_lowercase(),
                text(stream.codec),
                stream.packets.to_string(),
                stream.bytes.to_string(),
                format!("{} ({} %)", stream.lost, stream.loss_percent),
                ms(stream.jitter_ms),
                ms(stream.jitter_max_ms),
                ms(stream.rtt_ms),
                stream.mos.map(|mos| format!("{mos:.2}")).unwrap_or_default(),
                stream.dtmf_events.to_string(),
                stream.ssrc_changes.to_string(),
                stream.latches.to_string(),
                stream.timeouts.to_string(),
                drops.join(", "),
            ]
        })
        .collect();
    let page = Table {
        frame: Frame::new(&person, "/calls", None),
        title: "Call",
        notes,
        columns: vec![
            "Stream",
            "From",
            "Codec",
            "Packets",
            "Octets",
            "Lost",
            "Jitter, ms",
            "Highest",
            "Round trip, ms",
            "MOS",
            "Digits",
            "New sources",
            "Latched",
            "Timeouts",
            "Dropped",
        ],
        rows,
        next: None,
        link: None,
    };
    Ok(render(StatusCode::OK, &page))
}

pub(super) async fn trunks(State(app): State<App>, person: Person) -> Response {
    let rows = live::all_trunks(&app)
        .into_iter()
        .map(|trunk| {
            let targets: Vec<String> = trunk
                .targets
                .iter()
                .map(|target| format!("{} {}", target.uri, target.state))
                .collect();
            vec![
                trunk.id,
                trunk.role,
                trunk.state,
                trunk.calls.to_string(),
                text(trunk.calls_limit),
                text(trunk.cps_limit),
                trunk.refused_total.to_string(),
                targets.join(", "),
                trunk.node,
            ]
        })
        .collect();
    let page = Table {
        frame: Frame::new(&person, "/trunks", None),
        title: "Trunks",
        notes: Vec::new(),
        columns: vec![
            "Trunk",
            "Role",
            "State",
            "Calls",
            "Most calls",
            "Most calls/s",
            "Refused",
            "Targets",
            "Node",
        ],
        rows,
        next: None,
        link: None,
    };
    render(StatusCode::OK, &page)
}

#[derive(Template)]
#[template(path = "config.html")]
struct ConfigPage {
    frame: Frame,
    versions: Vec<VersionSummary>,
    document: Option<String>,
    may_change: bool,
}

async fn config_page(
    app: &App,
    person: &Person,
    message: Option<String>,
) -> Result<Response, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    let versions = configs::list(&mut reader, u64::MAX, ROWS).await?;
    let document = match app.publisher.active() {
        None => None,
        Some(active) => {
            let text = active.document.to_string();
            let text = api_config::document_for(&person.caller, text).await?;
            Some(text.chars().take(DOCUMENT_SHOWN_CHARS).collect())
        }
    };
    let page = ConfigPage {
        frame: Frame::new(person, "/config", message),
        versions,
        document,
        may_change: OPERATE.allows(person.caller.0.role),
    };
    Ok(render(StatusCode::OK, &page))
}

pub(super) async fn config(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
    config_page(&app, &person, None).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionForm {
    csrf: String,
    version: u64,
}

pub(super) async fn roll_back(
    State(app): State<App>,
    person: Person,
    Form(form): Form<VersionForm>,
) -> Result<Response, ApiError> {
    person.check(&form.csrf)?;
    need(&person, OPERATE)?;
    let name = person.caller.name();
    let activated = app.publisher.activate(form.version, name, "rollback").await?;
    let done = api_config::acknowledged(&app, activated).await;
    let nodes: Vec<String> =
        done.nodes.iter().map(|node| format!("{}: {}", node.node, node.result)).collect();
    let message = format!("Version {} is in force. {}", done.version, nodes.join(", "));
    config_page(&app, &person, Some(message)).await
}

struct SiteRow {
    number: u32,
    name: String,
    address: String,
    range: String,
    trunks: String,
    psap: String,
    elin: String,
}

impl From<SiteView> for SiteRow {
    fn from(site: SiteView) -> Self {
        let parts = [
            site.street_address,
            site.building,
            site.floor.map(|floor| format!("Floor {floor}")),
            site.room.map(|room| format!("Room {room}")),
            site.city,
            site.state,
            site.postal_code,
            site.country,
        ];
        let trunks: Vec<&str> =
            site.emergency_trunks.iter().map(|trunk| trunk.id.as_str()).collect();
        Self {
            number: site.id,
            name: site.site_name,
            address: parts.into_iter().flatten().collect::<Vec<_>>().join(", "),
            range: format!("{} - {}", site.ip_range_start, site.ip_range_end),
            trunks: trunks.join(", "),
            psap: text(site.psap_number),
            elin: text(site.elin),
        }
    }
}

#[derive(Template)]
#[template(path = "sites.html")]
struct SitesPage {
    frame: Frame,
    sites: Vec<SiteRow>,
    fields: &'static [(&'static str, &'static str, bool)],
    may_change: bool,
}

/// The form of a new site: name, label, needed.
const FIELDS: [(&str, &str, bool); 13] = [
    ("site_name", "Name", true),
    ("realm", "Realm (all access realms if empty)", false),
    ("ip_range_start", "First address", true),
    ("ip_range_end", "Last address", true),
    ("emergency_trunk", "Emergency trunk", false),
    ("psap_number", "PSAP number", false),
    ("elin", "ELIN", false),
    ("street_address", "Street address", false),
    ("city", "City", false),
    ("state", "State", false),
    ("postal_code", "Postal code", false),
    ("building", "Building", false),
    ("floor", "Floor", false),
];

async fn sites_page(
    app: &App,
    person: &Person,
    message: Option<String>,
) -> Result<Response, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    let sites = site_table::list(&mut reader, 0, 10 * ROWS).await?;
    let page = SitesPage {
        frame: Frame::new(person, "/sites", message),
        sites: sites.into_iter().map(SiteRow::from).collect(),
        fields: &FIELDS,
        may_change: OPERATE.allows(person.caller.0.role),
    };
    Ok(render(StatusCode::OK, &page))
}

pub(super) async fn sites(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
    sites_page(&app, &person, None).await
}

pub(super) async fn add_site(
    State(app): State<App>,
    person: Person,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let mut fields = serde_json::Map::new();
    let mut csrf = String::new();
    for (name, value) in form {
        match name.as_str() {
            "csrf" => csrf = value,
            _ if value.trim().is_empty() => {}
            _ => {
                fields.insert(name, value.trim().into());
            }
        }
    }
    person.check(&csrf)?;
    need(&person, OPERATE)?;
    let body: SiteBody = serde_json::from_value(fields.into())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let message = match api_e911::add_site(&app, &person.caller, body).await {
        Ok(site) => format!("Site {} is in force.", site.id()),
        Err(error) if error.status.is_client_error() => error.summary(),
        Err(error) => return Err(error),
    };
    sites_page(&app, &person, Some(message)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteForm {
    csrf: String,
    site_id: u32,
}

pub(super) async fn delete_site(
    State(app): State<App>,
    person: Person,
    Form(form): Form<DeleteForm>,
) -> Result<Response, ApiError> {
    person.check(&form.csrf)?;
    need(&person, OPERATE)?;
    let message = match api_e911::remove_site(&app, &person.caller, form.site_id).await {
        Ok(_) => format!("Site {} was removed.", form.site_id),
        Err(error) if error.status.is_client_error() => error.summary(),
        Err(error) => return Err(error),
    };
    sites_page(&app, &person, Some(message)).await
}

#[derive(Template)]
#[template(path = "soc2.html")]
struct Soc2Page {
    frame: Frame,
    controls: Vec<Control>,
    report: Report,
    statuses: [&'static str; 3],
    may_change: bool,
}

async fn soc2_page(
    app: &App,
    person: &Person,
    message: Option<String>,
) -> Result<Response, ApiError> {
    let mut reader = app.store.reader().acquire().await?;
    let page = Soc2Page {
        frame: Frame::new(person, "/soc2", message),
        controls: soc2::controls(&mut reader, None).await?,
        report: soc2::report(&mut reader, clock::unix_ms()).await?,
        statuses: Status::ALL.map(Status::name),
        may_change: ATTEST.allows(person.caller.0.role),
    };
    Ok(render(StatusCode::OK, &page))
}

pub(super) async fn soc2(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
    soc2_page(&app, &person, None).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControlForm {
    csrf: String,
    control_id: String,
    revision: u64,
    implementation_status: String,
    test_results: String,
}

pub(super) async fn save_control(
    State(app): State<App>,
    person: Person,
    Form(form): Form<ControlForm>,
) -> Result<Response, ApiError> {
    person.check(&form.csrf)?;
    need(&person, ATTEST)?;
    let body = api_soc2::ControlBody::of_form(
        form.control_id.clone(),
        form.implementation_status,
        form.test_results,
        form.revision,
    );
    let message = match api_soc2::save_control(&app, &person.caller, body).await {
        Ok(_) => format!("Control {} was saved.", form.control_id),
        Err(error) if error.status.is_client_error() => error.summary(),
        Err(error) => return Err(error),
    };
    soc2_page(&app, &person, Some(message)).await
}

pub(super) async fn audit(
    State(app): State<App>,
    person: Person,
    query: Query,
) -> Result<Response, ApiError> {
    if need(&person, AUDIT).is_err() {
        return Ok(Redirect::to("/").into_response());
    }
    let query = query.only(&["cursor"])?;
    let cursor = query.text("cursor").and_then(Cursor::parse);
    let filter = Filter { limit: ROWS, cursor, ..Filter::default() };
    let mut reader = app.store.reader().acquire().await?;
    let page = query::events(&mut reader, &filter).await?;
    let rows = page
        .rows
        .into_iter()
        .map(|row| {
            let field = |name: &str| match row.entry.get(name) {
                None | Some(serde_json::Value::Null) => String::new(),
                Some(serde_json::Value::String(value)) => value.clone(),
                Some(value) => value.to_string(),
            };
            vec![
                clock::rfc3339(row.at_ms),
                row.node.clone(),
                row.seq.to_string(),
                field("kind"),
                field("severity"),
                field("actor"),
                field("call"),
                field("fields"),
                text(row.flaw.clone()),
            ]
        })
        .collect();
    let page = Table {
        frame: Frame::new(&person, "/audit", None),
        title: "Audit",
        notes: vec!["GET /api/audit/verify checks the chains.".to_owned()],
        columns: vec![
            "Time", "Node", "Record", "Kind", "Severity", "Actor", "Call", "Fields", "Flaw",
        ],
        rows,
        next: page.next.map(|next| format!("/audit?cursor={next}")),
        link: None,
    };
    Ok(render(StatusCode::OK, &page))
}
