//! Config document to [`Snapshot`]. Every check runs even when an earlier one failed, so that the
//! author of a document sees all faults at once.

mod edge;
mod emergency;
mod faults;
mod features;
mod realms;
mod routes;
mod sites;
mod sources;
mod text;
mod trunk_media;
mod trunks;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ravelin_contract::{
    config::{Config, Mode},
    link::FieldError,
};

pub(crate) use faults::{Fault, FaultKind, Faults};
pub(crate) use routes::RouteTable;
pub(crate) use sites::number_sites;
pub(crate) use sources::SourceTable;

use crate::{
    RealmId, SiteId, Snapshot, TrunkId, class::ClassTable, lpm::AddressTable, numbers::PatternMap,
    snapshot::EmergencyStep, yaml,
};

/// A snapshot, and what its author should know about it.
#[derive(Debug)]
pub struct Compiled {
    pub snapshot: Snapshot,
    /// Legal but unwise, for example a site with only one emergency trunk (EM-82).
    pub warnings: Vec<FieldError>,
}

/// Compiles a config document (YAML; JSON is YAML). Every fault is reported, not only the first.
///
/// # Errors
/// The faults, in the order of the document.
pub fn compile(document: &str, version: u64) -> Result<Compiled, Vec<FieldError>> {
    let config = yaml::read(document)?;
    match compile_config(&config, version) {
        Ok((snapshot, mut warnings)) => {
            in_order(document, &mut warnings);
            Ok(Compiled { snapshot, warnings })
        }
        Err(faults) => {
            let mut errors: Vec<FieldError> = faults.into_iter().map(Fault::into_error).collect();
            in_order(document, &mut errors);
            Err(errors)
        }
    }
}

fn in_order(document: &str, faults: &mut [FieldError]) {
    yaml::add_lines(document, faults);
    faults.sort_by_key(|fault| fault.line);
}

/// Tables behind the questions that a shard asks.
#[derive(Debug)]
pub(crate) struct Tables {
    /// By realm.
    pub(crate) classes: Vec<ClassTable>,
    /// By realm.
    pub(crate) sources: Vec<SourceTable>,
    /// By realm; values are positions in `Snapshot::sites`.
    pub(crate) sites: Vec<AddressTable>,
    /// By trunk: numbers that the customer is entitled to.
    pub(crate) entitlements: Vec<PatternMap>,
    pub(crate) routes: RouteTable,
    /// Emergency chains; sites with equal chains share one. The first one is for no site.
    pub(crate) chains: Vec<Box<[EmergencyStep]>>,
    /// By site: position in `chains`.
    pub(crate) chain_of_site: Vec<u32>,
    /// Sites of extensions, sorted by extension.
    pub(crate) extensions: Vec<ExtensionEntry>,
}

#[derive(Debug)]
pub(crate) struct ExtensionEntry {
    pub(crate) extension: Box<[u8]>,
    pub(crate) site: SiteId,
    pub(crate) pinned: bool,
}

/// Names of the document to positions in the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Names<'c> {
    pub(crate) realms: HashMap<&'c str, RealmId>,
    pub(crate) trunks: HashMap<&'c str, TrunkId>,
}

/// The same for a document that is already parsed. Faults have no lines.
pub(crate) fn compile_config(
    config: &Config,
    version: u64,
) -> Result<(Snapshot, Vec<FieldError>), Vec<Fault>> {
    let mut faults = Faults::default();
    let mut names = Names::default();

    let mode = mode(config, &mut faults);
    text::check_node(&config.node, &mut faults);
    let (realms, classes) = realms::build(config, &mut names, &mut faults);
    let listeners = edge::listeners(config, &names, &realms, &mut faults);
    let media = edge::media(config, &names, &realms, &listeners, &mut faults);
    let limits = edge::limits(config, &mut faults);
    edge::cores(config, &mut faults);
    let stir = features::stir(config, &mut faults);
    let (mut trunks, entitlements) =
        trunks::build(config, &mut names, &listeners, &stir, &mut faults);
    let sources = sources::build(config, &names, realms.len(), &mut faults);
    let (routes, route_table) = routes::build(config, &names, &classes, &mut faults);
    let sites = sites::build(config, &realms, &names, &classes, &mut faults);
    let by_name = sites::by_name(&sites);
    trunks::default_sites(config, &by_name, &mut trunks, &mut faults);
    let site_tables = sites::tables(config, &realms, &names, &mut faults);
    let extensions = sites::extensions(config, &sites, &by_name, &classes, &mut faults);
    let chains = emergency::chains(config, &names, &trunks, &realms, &mut faults);
    features::check(config, mode, &mut faults);
    realms::check_use(config, &realms, &mut faults);

    let faults = faults.finish()?;
    let snapshot = Snapshot {
        version,
        node: config.node.clone(),
        mode,
        cores: config.edge.cores.clone(),
        limits,
        realms,
        listeners,
        media,
        trunks,
        routes,
        sites,
        stir,
        default_location: features::default_location(config),
        features: config.features.clone(),
        emergency: config.emergency.clone().unwrap_or_default(),
        control: config.control.clone(),
        tables: Tables {
            classes,
            sources,
            sites: site_tables,
            entitlements,
            routes: route_table,
            chains: chains.chains,
            chain_of_site: chains.of_site,
            extensions,
        },
    };
    Ok((snapshot, faults))
}

/// E10: what routes emergency calls has to say whether they are real.
fn mode(config: &Config, faults: &mut Faults) -> Mode {
    if let Some(deployment) = &config.deployment {
        return deployment.mode;
    }
    let karis_law = config.features.karis_law.as_ref();
    let routes_emergency = !config.sites.is_empty()
        || karis_law.is_some_and(|k| k.emergency_trunk_id.is_some())
        || config.trunks.iter().any(|trunk| {
            trunk.may_carry_emergency || trunk.role == ravelin_contract::config::Role::Emergency
        });
    if routes_emergency {
        faults.error(
            "deployment.mode",
            "missing: a document with emergency routing has to state `production` or `test`",
        );
    }
    Mode::Production
}

/// Paths whose change from `old` to `new` takes effect only after a restart of the edge: cores,
/// listeners, media ranges, node name. Empty: the new snapshot can be put in force as it is.
#[must_use]
pub fn restart_needed(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut paths = Vec::new();
    let mut check = |changed: bool, path: &str| {
        if changed {
            paths.push(path.to_owned());
        }
    };
    // Positions of realms may move without anything else changing: compare by name.
    let realm = |snapshot: &Snapshot, id| snapshot.realm(id).map(|realm| realm.id.clone());
    let listeners = |snapshot: &Snapshot| -> Vec<_> {
        let named = |l: &crate::Listener| {
            (l.id.clone(), realm(snapshot, l.realm), l.transport, l.bind, l.advertise)
        };
        snapshot.listeners.iter().map(named).collect()
    };
    let media = |snapshot: &Snapshot| -> Vec<_> {
        let named = |m: &crate::MediaRange| {
            (realm(snapshot, m.realm), m.address, m.advertise, m.first_port, m.last_port, m.driver)
        };
        snapshot.media.iter().map(named).collect()
    };
    // Code points are set when a socket is made.
    let marks = |snapshot: &Snapshot| -> Vec<_> {
        let listeners = snapshot.listeners.iter().map(|listener| listener.dscp);
        listeners.chain(snapshot.media.iter().map(|range| range.dscp)).collect()
    };
    check(old.node != new.node, "node");
    check(old.cores != new.cores, "edge.cores");
    check(listeners(old) != listeners(new), "edge.listeners");
    check(media(old) != media(new), "edge.media");
    check(marks(old) != marks(new), "realms.dscp");
    paths
}
