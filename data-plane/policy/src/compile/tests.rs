use super::*;
use crate::*;

const LOOPBACK: &str = include_str!("../../../../docs/examples/loopback.yml");

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> std::net::SocketAddr {
    text.parse().unwrap()
}

fn loopback() -> Snapshot {
    compile(LOOPBACK, 7).unwrap().snapshot
}

/// Chain of trunk names.
fn chain(snapshot: &Snapshot, site: Option<SiteId>) -> Vec<&str> {
    snapshot.emergency_chain(site).map(|trunk| snapshot.trunk(trunk).unwrap().id.as_str()).collect()
}

#[test]
fn the_example_compiles_as_it_stands() {
    let Compiled { snapshot, warnings } = compile(LOOPBACK, 7).unwrap();
    let warned: Vec<&str> = warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(
        warned,
        ["trunks[1].realm"],
        "only the unstated right of the core realm: {warnings:?}"
    );
    assert_eq!((snapshot.version, snapshot.node.as_str()), (7, "edge-1"));
    assert_eq!(snapshot.mode, Mode::Production);
    assert_eq!(snapshot.cores, [0, 1]);
    let realms: Vec<(&str, RealmKind, bool)> =
        snapshot.realms.iter().map(|r| (r.id.as_str(), r.kind, r.emergency_allowed)).collect();
    assert_eq!(realms, [("access", RealmKind::Access, true), ("core", RealmKind::Peering, false)]);
    assert_eq!(snapshot.listeners.len(), 4);
    assert_eq!(snapshot.media[1].first_port, 30000);
    let access = snapshot.realm_by_id("access").unwrap();
    let core = snapshot.realm_by_id("core").unwrap();

    let trunk = |name: &str| snapshot.trunk_by_id(name);
    assert_eq!(snapshot.trunk_by_source(access, socket("127.0.1.77:9")), trunk("pbx-detroit"));
    assert_eq!(snapshot.trunk_by_source(core, socket("127.0.1.77:9")), None);
    assert_eq!(snapshot.trunk_by_source(core, socket("127.0.3.1:5060")), trunk("carrier-b"));

    let pbx = trunk("pbx-detroit").unwrap();
    let route = snapshot.route(pbx, b"+12125550100").unwrap();
    assert_eq!(snapshot.route_settings(route).unwrap().id, "outbound");
    assert_eq!(snapshot.route(trunk("emergency").unwrap(), b"+12125550100"), None);

    let attest = |name: &str, tn: &[u8]| {
        let found = snapshot.attestation(trunk(name).unwrap(), tn);
        (found.level.map(AttestationLevel::as_str), found.rule.0)
    };
    assert_eq!(attest("pbx-detroit", b"+13135550100"), (Some("A"), "customer-entitled"));
    assert_eq!(attest("pbx-detroit", b"3135550100"), (Some("A"), "customer-entitled"));
    assert_eq!(attest("pbx-detroit", b"+12125550100"), (Some("B"), "customer-not-entitled"));
    assert_eq!(attest("pbx-detroit", b"anonymous"), (Some("B"), "customer-not-entitled"));
    assert_eq!(attest("carrier-a", b"+13135550100"), (Some("C"), "gateway"));

    let found = snapshot.site(access, ip("127.0.1.1")).unwrap();
    assert_eq!(snapshot.site_settings(found.site).unwrap().name, "Detroit Factory");
    assert_eq!(snapshot.site_settings(found.site).unwrap().site_id, 1);
    assert!(snapshot.site(access, ip("127.0.1.254")).is_some());
    assert_eq!(snapshot.site(access, ip("127.0.1.0")), None);
    assert_eq!(snapshot.site(access, ip("127.0.1.255")), None);
    assert_eq!(snapshot.site(core, ip("127.0.1.1")), None);
    assert_eq!(
        chain(&snapshot, Some(found.site)),
        ["detroit_emergency", "detroit_emergency_backup", "emergency"]
    );
    assert_eq!(chain(&snapshot, None), ["emergency"]);
    assert_eq!(
        snapshot.locate(access, ip("127.0.5.5"), None, None).address.unwrap().street,
        Some("123 Manufacturing Drive".to_owned())
    );
}
