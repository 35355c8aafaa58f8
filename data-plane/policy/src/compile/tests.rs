use super::*;
use crate::*;

const LOOPBACK: &str = include_str!("../../../../docs/examples/loopback.yml");

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> std::net::SocketAddr {
    text.parse().unwrap()
}

fn compiled(document: &str) -> Snapshot {
    match compile(document, 7) {
        Ok(compiled) => compiled.snapshot,
        Err(faults) => panic!("{faults:#?}"),
    }
}

/// Faults of a document, as `path:line`, and their reasons.
fn faults(document: &str) -> (Vec<String>, Vec<String>) {
    let faults = compile(document, 7).expect_err("is faulty");
    let place = |f: &FieldError| match f.line {
        Some(line) => format!("{}:{line}", f.path),
        None => f.path.clone(),
    };
    (faults.iter().map(place).collect(), faults.into_iter().map(|f| f.reason).collect())
}

/// The one fault of the example with one replacement made; the path without line.
fn broken(from: &str, to: &str) -> (String, String) {
    assert!(LOOPBACK.contains(from), "{from}");
    let document = LOOPBACK.replacen(from, to, 1);
    let mut faults = compile(&document, 7).expect_err(&format!("{from} -> {to}"));
    assert_eq!(faults.len(), 1, "{from} -> {to}: {faults:#?}");
    let fault = faults.remove(0);
    (fault.path, fault.reason)
}

fn broken_path(from: &str, to: &str) -> String {
    broken(from, to).0
}

/// A document with what every one needs, and `rest` behind it.
fn document(rest: &str) -> String {
    format!(
        "node: n\ndeployment: {{ mode: production }}\nedge:\n  listeners:\n  - {{ id: a, realm: \
         access, transport: udp, bind: \"127.8.0.1:5060\" }}\n  - {{ id: c, realm: core, \
         transport: udp, bind: \"127.8.0.2:5060\" }}\n  - {{ id: c6, realm: core, transport: udp, \
         bind: \"[::1]:5060\" }}\n  media:\n  - {{ realm: access, address: 127.8.0.1, ports: \
         20000-20099 }}\n  - {{ realm: core, address: 127.8.0.2, ports: 20000-20099 }}\n{rest}"
    )
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
        ["trunks[1].realm", "features.emergency_notification.webhook_url"],
        "the unstated right of the core realm, and contacts without a way to them: {warnings:?}"
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

/// All faults come at once, in order, with path and line.
#[test]
fn every_fault_is_reported_with_its_line() {
    let text = "\
node: n
deployment: { mode: production }
edge:
  listeners:
    - { id: a, realm: access, transport: udp, bind: localhost:5060 }
  media:
    - realm: access
      address: 127.8.0.1
      ports: 20001-20099
    - realm: acess
      address: 0.0.0.0
      ports: 20000-20099
trunks:
  - id: t
    realm: access
    role: customer
    sources: [127.1.0.1/24]
    targets:
      - { uri: \"sip:sbc.example.com\" }
  - id: t
    realm: access
    role: carrier
    targets: [{ uri: \"sip:127.9.0.1\" }]
    options: { interval: 10 s, failures: 0 }
routes:
  - { id: r, from: [nobody], to: abc, trunks: [] }
sites:
  - { site_name: S, ip_range_start: 10.0.0.9, ip_range_end: 10.0.0.1, elin: \"911\" }
features:
  karis_law: { enabled: false, emergency_trunk_id: gone }
";
    let (places, reasons) = faults(text);
    assert_eq!(
        places,
        [
            "edge.listeners[0].bind:5",
            "edge.media[0].ports:9",
            "edge.media[1].realm:10",
            "edge.media[1].address:11",
            "trunks[0].sources[0]:17",
            "trunks[0].targets[0].uri:19",
            "trunks[1].id:20",
            "trunks[1].options.failures:24",
            "routes[0].to:26",
            "routes[0].from[0]:26",
            "routes[0].trunks:26",
            "sites[0].elin:28",
            "sites[0].ip_range_start:28",
            "sites[0].emergency_trunks:28",
            "features.karis_law.emergency_trunk_id:30",
            "features.karis_law.enabled:30",
        ],
        "{reasons:#?}"
    );
}

#[test]
fn faults_of_the_edge_are_named() {
    let second = "bind: \"127.0.0.20:5060\" }\n  media";
    assert!(broken("node: edge-1", "node: \"a b\"").1.contains("not a name"));
    assert_eq!(broken_path("cores: [0, 1]", "cores: [1, 1]"), "edge.cores[1]");
    assert_eq!(
        broken("127.0.0.20:5060\" }\n  media", "127.0.0.10:5060\" }\n  media").0,
        "edge.listeners[3].bind"
    );
    assert_eq!(broken_path("id: core-udp", "id: access-udp"), "edge.listeners[2].id");
    assert!(
        broken("transport: tcp, bind: \"127.0.0.10", "transport: tls, bind: \"127.0.0.10")
            .1
            .contains("not part of this release")
    );
    assert_eq!(
        broken_path(second, "bind: \"127.0.0.20:5060\", advertise: \"[::1]:5060\" }\n  media"),
        "edge.listeners[3].advertise"
    );
    for (ports, reason) in [
        ("20001-24999", "even port"),
        ("20000-24998", "even port"),
        ("20000-20001", "too small"),
        ("24999-20000", "ends before"),
        ("1000-2001", "below 1024"),
        ("20000", "FIRST-LAST"),
        ("20000-99999", "FIRST-LAST"),
        ("5000-5999", "listener"),
    ] {
        let (path, text) = broken("20000-24999", ports);
        assert_eq!(path, "edge.media[0].ports");
        assert!(text.contains(reason), "{ports}: {text}");
    }
    let overlapping = "127.0.0.10, ports: 24000-34999";
    assert_eq!(broken_path("127.0.0.20, ports: 30000-34999", overlapping), "edge.media[1].ports");
    let (path, reason) = broken(
        "  media:\n    - { realm: access, address: 127.0.0.10, ports: 20000-24999, driver: auto }",
        "  media:\n",
    );
    assert!(path.starts_with("trunks[0]") && reason.contains("edge.media"), "{path} {reason}");
    let (path, reason) = broken("cores: [0, 1]", "limits: { message_bytes: 1KiB }");
    assert!(path == "edge.limits.message_bytes" && reason.contains("4096-65535"), "{reason}");
    assert_eq!(
        broken_path("cores: [0, 1]", "limits: { connection_idle: 1s }"),
        "edge.limits.connection_idle"
    );
    let limits = compiled(&LOOPBACK.replace(
        "cores: [0, 1]",
        "limits: { calls: 5, cps: 6, connections: 7, connection_idle: 2m, message_bytes: 8KiB }",
    ))
    .limits;
    assert_eq!((limits.calls, limits.cps, limits.connections), (5, Some(6), 7));
    assert_eq!((limits.connection_idle.as_secs(), limits.message_bytes), (120, 8192));
}

#[test]
fn faults_of_trunks_and_routes_are_named() {
    let (places, _) = faults(&LOOPBACK.replace("- id: carrier-b", "- id: carrier-a"));
    assert_eq!(places, ["trunks[2].id:33", "routes[0].trunks[1]:53", "routes[1].from[1]:54"]);
    let (path, reason) = broken("sip:127.0.2.1:5060", "sip:gw.carrier.example");
    assert_eq!(path, "trunks[1].targets[0].uri");
    assert!(reason.contains("asks no DNS"), "{reason}");
    let (_, reason) = broken("sip:127.0.2.1:5060", "sip:127.0.0.20:5060");
    assert!(reason.contains("our own listener `core-udp`"), "{reason}");
    let (_, reason) = broken("sip:127.0.2.1:5060", "sip:[2001:db8::1]");
    assert!(reason.contains("no IPv6 listener"), "{reason}");
    let (path, reason) = broken("sources: [127.0.3.0/24]", "sources: [127.0.2.0/24]");
    assert_eq!(path, "trunks[2].sources[0]");
    assert!(reason.contains("`carrier-a`"), "{reason}");
    assert_eq!(broken_path("\"+1313555*\"", "\"abc\""), "trunks[0].numbers[0]");
    assert_eq!(broken_path("cps: 200", "cps: 0"), "trunks[0].limits.cps");
    assert_eq!(broken_path("interval: 10s", "interval: 10"), "trunks[1].options.interval");
    assert_eq!(broken_path("interval: 10s", "interval: 2h"), "trunks[1].options.interval");
    assert_eq!(broken_path("failures: 3", "failures: 101"), "trunks[1].options.failures");
    let (path, reason) = broken("trunks: [carrier-a, carrier-b]", "trunks: [carrier-a, emergency]");
    assert_eq!(path, "routes[0].trunks");
    assert!(reason.contains("PSAP"), "{reason}");
    assert_eq!(
        broken_path("trunks: [carrier-a, carrier-b]", "trunks: [carrier-a, carrier-a]"),
        "routes[0].trunks[1]"
    );
    assert_eq!(broken_path("id: inbound", "id: outbound"), "routes[1].id");
    assert_eq!(broken_path("from: [pbx-detroit]", "from: [pbx]"), "routes[0].from[0]");
    let (path, reason) =
        broken("targets: [{ uri: \"sip:127.0.9.9:5060\" }]", "sources: [127.0.9.9]");
    assert_eq!(path, "features.karis_law.emergency_trunk_id");
    assert!(reason.contains("no target"), "{reason}");
}

/// EM-14: numbers and extensions that would swallow an emergency call.
#[test]
fn numbers_that_take_in_emergency_numbers_are_refused() {
    for number in ["911", "91*", "9*", "911*", "+911", "9911", "9-911", "99*"] {
        let (path, reason) = broken("\"+1313555*\"", &format!("\"{number}\""));
        assert_eq!(path, "trunks[0].numbers[0]", "{number}");
        assert!(reason.contains("emergency number"), "{reason}");
    }
    for number in ["+91*", "+911*", "9112", "1911", "*", "2*"] {
        compiled(&LOOPBACK.replace("\"+1313555*\"", &format!("\"{number}\"")));
    }
    let pinned = |extension: &str| {
        format!("{LOOPBACK}\nextension_sites: [{{ extension: \"{extension}\", site_id: 1 }}]\n")
    };
    for extension in ["911", "91", "9", "9911", "991", "9-1-1"] {
        let (places, reasons) = faults(&pinned(extension));
        assert!(places[0].starts_with("extension_sites[0].extension:"), "{extension} {places:?}");
        assert!(reasons[0].contains("emergency number"), "{reasons:?}");
    }
    for extension in ["9112", "1911", "1001", "alice", "*9"] {
        compiled(&pinned(extension));
    }
    let Compiled { warnings, .. } = compile(
        &LOOPBACK.replace("to: \"*\", trunks: [carrier-a", "to: \"911\", trunks: [carrier-a"),
        1,
    )
    .unwrap();
    assert!(warnings.iter().any(|w| w.path == "routes[0].to"), "{warnings:?}");
}

/// E10, K9, EM-2.
#[test]
fn mode_is_required_with_emergency_routing() {
    let (path, reason) = broken(
        "deployment:\n  mode: production                 # production | test; see emergency requirements for what may switch a test guard on\n",
        "",
    );
    assert_eq!(path, "deployment.mode");
    assert!(reason.contains("production"), "{reason}");
    assert_eq!(
        broken_path("karis_law:\n    enabled: true", "karis_law:\n    enabled: false"),
        "features.karis_law.enabled"
    );
    let test = LOOPBACK
        .replace("mode: production", "mode: test")
        .replace("karis_law:\n    enabled: true", "karis_law:\n    enabled: false");
    assert_eq!(compiled(&test).mode, Mode::Test);
    let plain = document("").replace("deployment: { mode: production }\n", "");
    assert_eq!(compiled(&plain).mode, Mode::Production);
}

#[test]
fn most_specific_source_wins() {
    let snapshot = compiled(&document(
        "trunks:
- { id: wide, realm: core, role: carrier, sources: [127.9.0.0/16, \"[::1]:5070\"] }
- { id: net, realm: core, role: carrier, sources: [127.9.1.0/24] }
- { id: host, realm: core, role: carrier, sources: [127.9.1.7] }
- { id: port, realm: core, role: carrier, sources: [\"127.9.1.7:5070\", \"127.9.2.0/24:5070\"] }
- { id: pbx, realm: access, role: customer, sources: [127.9.0.0/16] }
",
    ));
    let core = snapshot.realm_by_id("core").unwrap();
    let access = snapshot.realm_by_id("access").unwrap();
    let of = |realm, source: &str| {
        let trunk = snapshot.trunk_by_source(realm, socket(source))?;
        Some(snapshot.trunk(trunk)?.id.as_str())
    };
    assert_eq!(of(core, "127.9.1.7:5060"), Some("host"));
    assert_eq!(of(core, "127.9.1.7:5070"), Some("port"));
    assert_eq!(of(core, "127.9.1.8:5070"), Some("net"));
    assert_eq!(of(core, "127.9.2.8:5070"), Some("port"));
    assert_eq!(of(core, "127.9.2.8:5060"), Some("wide"), "a source with a port hides nothing else");
    assert_eq!(of(core, "127.10.0.1:5060"), None);
    assert_eq!(of(core, "[::1]:5070"), Some("wide"));
    assert_eq!(of(core, "[::1]:5071"), None);
    assert_eq!(of(core, "[::ffff:127.9.1.7]:5060"), Some("host"));
    assert_eq!(of(access, "127.9.1.7:5070"), Some("pbx"), "realms do not share sources");
    let any = |ip_text: &str| snapshot.trunk_by_address(core, ip(ip_text)).map(|t| t.0);
    assert_eq!([any("127.9.1.7"), any("127.9.2.1"), any("::1")], [Some(2), Some(0), Some(0)]);
}

const EMERGENCY: &str = "trunks:
- { id: pbx, realm: access, role: customer, sources: [127.9.0.0/16], default_site: B }
- { id: e1, realm: core, role: emergency, targets: [{ uri: \"sip:127.7.0.1\" }] }
- { id: e2, realm: core, role: emergency, targets: [{ uri: \"sip:127.7.0.2\" }], address_test: true }
- { id: e3, realm: core, role: emergency, targets: [{ uri: \"sip:127.7.0.3\" }] }
- { id: flagged, realm: core, role: carrier, targets: [{ uri: \"sip:127.7.0.4\" }], may_carry_emergency: true }
- { id: plain, realm: core, role: carrier, targets: [{ uri: \"sip:127.7.0.5\" }], address_test: true }
emergency: { last_resort_any_trunk: LAST }
features: { karis_law: { emergency_trunk_id: e1 } }
sites:
- { name: A, ip_range: 127.9.1.0/24, emergency_trunk: e3,
    emergency_trunks: [{ id: e1, priority: 9 }, { id: e2, priority: 3 }, { id: e3, priority: 1 }] }
- { name: B, ip_range: 127.9.2.0/24, site_id: 7, emergency_trunks: [{ id: flagged }] }
- { name: VPN, ip_range: 127.9.3.0/24, not_a_place: true }
- { name: Nested, ip_range: 127.9.1.64/26, realm: access }
extension_sites:
- { extension: \"100\", site: A }
- { extension: \"200\", site_id: 7, pinned: false }
";

/// EM-50: site trunks by priority, the global one, flagged ones, each once.
#[test]
fn emergency_chains() {
    let snapshot = compiled(&document(&EMERGENCY.replace("LAST", "false")));
    assert_eq!(chain(&snapshot, Some(SiteId(0))), ["e3", "e2", "e1", "flagged"]);
    assert_eq!(chain(&snapshot, Some(SiteId(1))), ["flagged", "e1"]);
    assert_eq!(chain(&snapshot, Some(SiteId(2))), ["e1", "flagged"]);
    assert_eq!(chain(&snapshot, None), ["e1", "flagged"]);
    let tiers: Vec<Tier> =
        snapshot.emergency_steps(Some(SiteId(0))).iter().map(|step| step.tier).collect();
    assert_eq!(tiers, [Tier::Site, Tier::Site, Tier::Site, Tier::Flagged]);
    let snapshot = compiled(&document(&EMERGENCY.replace("LAST", "true")));
    assert_eq!(chain(&snapshot, None), ["e1", "flagged", "plain"]);
    assert_eq!(snapshot.emergency_steps(None)[2].tier, Tier::LastResort);
    let tests: Vec<u16> = snapshot.address_test_chain(Some(SiteId(0))).map(|t| t.0).collect();
    assert_eq!(tests, [2, 5], "EM-19: only trunks that answer 933");
}

/// A call tries every trunk of its chain: one whose trunks are named would be too long is refused, with
/// where it comes from, and none is cut but at its last resort, with a warning.
#[test]
fn a_long_emergency_chain_is_whole_or_refused() {
    use super::emergency::EMERGENCY_CHAIN_MAX;
    let of = |emergency: usize, carriers: usize, site: bool| {
        let trunk = |role: &str, i: usize| {
            format!(
                "- {{ id: {role}{i}, realm: core, role: {role}, \
                 may_carry_emergency: {}, targets: [{{ uri: \"sip:127.7.1.{i}\" }}] }}\n",
                role == "emergency"
            )
        };
        let trunks: String = (0..emergency)
            .map(|i| trunk("emergency", i))
            .chain((0..carriers).map(|i| trunk("carrier", i)))
            .collect();
        let site = match site {
            true => {
                "sites:\n- { name: S, realm: access, ip_range: 10.0.0.0/24, \
                 emergency_trunk: carrier0 }\n"
            }
            false => "",
        };
        document(&format!("emergency: {{ last_resort_any_trunk: true }}\ntrunks:\n{trunks}{site}"))
    };
    let most = EMERGENCY_CHAIN_MAX;
    let snapshot = compiled(&of(20, most - 20, false));
    let all = chain(&snapshot, None);
    assert_eq!((all.len(), all[19], all[20]), (most, "emergency19", "carrier0"));
    let refused = |text: &str| -> Vec<(String, String)> {
        let faults = compile(text, 7).err().unwrap_or_default();
        let told = faults.into_iter().filter(|fault| fault.reason.contains("emergency chain"));
        told.map(|fault| (fault.path, fault.reason)).collect()
    };
    let warned = |text: &str| -> Vec<String> {
        let told = compile(text, 7).unwrap().warnings.into_iter();
        let told = told.filter(|told| told.path == "emergency.last_resort_any_trunk");
        told.map(|told| told.reason).collect()
    };
    assert_eq!(warned(&of(20, most - 20, true)), [""; 0], "its own trunk is one of them");
    let long = of(20, most - 17, true);
    let [told] = &warned(&long)[..] else { panic!("not once") };
    assert!(told.contains("at most 64 trunks: 3 of the carriers"), "{told}");
    let snapshot = compiled(&long);
    for (site, first) in [(None, "emergency0"), (Some(SiteId(0)), "carrier0")] {
        let all = chain(&snapshot, site);
        assert_eq!((all.len(), all[0]), (most, first));
        assert!(!all.contains(&"carrier46"));
    }
    let [(path, reason)] = &refused(&of(most + 1, 3, true))[..] else { panic!("not once") };
    assert_eq!(path, "emergency");
    assert!(reason.contains("has 65 trunks") && reason.contains("65 with `may"), "{reason}");
    let site =
        of(most, 1, true).replace("last_resort_any_trunk: true", "last_resort_any_trunk: false");
    let [(path, reason)] = &refused(&site)[..] else { panic!("not once") };
    assert_eq!(path, "sites[0].emergency_trunks");
    assert!(reason.contains("of site `S` has 65") && reason.contains("1 of the site"), "{reason}");
}

/// EM-25: pinned, address, assigned, trunk default; EM-26, EM-27.
#[test]
fn precedence_of_places() {
    let snapshot = compiled(&document(&EMERGENCY.replace("LAST", "false")));
    let access = snapshot.realm_by_id("access").unwrap();
    let at = |source: &str, extension: Option<&str>, trunk: Option<TrunkId>| {
        let found = snapshot.locate(access, ip(source), extension.map(str::as_bytes), trunk).site?;
        Some((snapshot.site_settings(found.site)?.name.as_str(), found.rule.as_str()))
    };
    let pbx = snapshot.trunk_by_id("pbx");
    assert_eq!(at("127.9.2.1", Some("100"), pbx), Some(("A", "pinned")));
    assert_eq!(at("127.9.1.1", Some("200"), pbx), Some(("A", "address")));
    assert_eq!(at("127.9.1.64", None, pbx), Some(("Nested", "address")));
    assert_eq!(at("127.9.9.1", Some("200"), pbx), Some(("B", "assigned")));
    assert_eq!(at("127.9.9.1", Some("300"), pbx), Some(("B", "trunk_default")));
    assert_eq!(at("127.9.9.1", None, None), None);
    assert_eq!(at("127.9.3.1", None, pbx), Some(("VPN", "address")));
    assert!(snapshot.locate(access, ip("127.9.3.1"), None, pbx).address.is_none());
    assert_eq!(snapshot.sites.iter().map(|s| s.site_id).collect::<Vec<_>>(), [1, 7, 2, 3]);
    assert!(snapshot.sites.iter().all(|s| s.psap == "911"));
    let british =
        format!("realms: [{{ id: access, country: GB }}]\n{EMERGENCY}").replace("LAST", "false");
    assert!(compiled(&document(&british)).sites.iter().all(|s| s.psap == "999"));
}

#[test]
fn faults_of_sites_are_named() {
    let start = "ip_range_start: \"127.0.1.1\"";
    assert_eq!(broken_path(start, "ip_range_start: \"127.0.2.1\""), "sites[0].ip_range_start");
    assert_eq!(broken_path(start, "ip_range_start: \"::1\""), "sites[0].ip_range_start");
    assert_eq!(broken_path(start, "ip_range_start: \"fe80::1%eth0\""), "sites[0].ip_range_start");
    assert_eq!(broken_path(start, "ip_range: 127.0.1.0/24"), "sites[0].ip_range");
    assert_eq!(broken_path("realm: access\n    ip", "realm: acess\n    ip"), "sites[0].realm");
    assert_eq!(broken_path("elin: \"+13135551000\"", "elin: \"3135551000\""), "sites[0].elin");
    assert_eq!(broken_path("psap_number: \"911\"", "psap_number: \"933\""), "sites[0].psap_number");
    assert_eq!(broken_path("country: \"US\"", "country: \"Utopia\""), "sites[0].country");
    assert_eq!(broken_path("city: \"Detroit\"", "city: \"De\\r\\ntroit\""), "sites[0].city");
    assert_eq!(
        broken_path("{ id: detroit_emergency, priority: 1 }", "{ id: pbx-detroit, priority: 1 }"),
        "sites[0].emergency_trunks[0].id"
    );
    let second = |keys: &str| {
        let site = format!("sites:\n  - {{ site_name: Other, realm: access, {keys} }}");
        broken(
            "sites:                             # where people dial 911 from; also editable through the API",
            &site,
        )
    };
    let (path, reason) = second("ip_range: 127.0.1.2-127.0.1.255");
    assert_eq!(path, "sites[1].ip_range_start");
    assert!(reason.contains("overlaps site `Other`"), "{reason}");
    assert_eq!(second("ip_range: 127.0.8.0/24, elin: \"+13135551000\"").0, "sites[1].elin");
    assert_eq!(second("ip_range: 127.0.8.0/24, site_id: 0").0, "sites[0].site_id");
    let global = LOOPBACK
        .replace("emergency_trunk_id: \"emergency\"", "require_location: true")
        .replace("require_location: true\n    require_location: true", "require_location: true");
    let alone = global.replace("    emergency_trunks: [{ id: detroit_emergency, priority: 1 }, { id: detroit_emergency_backup, priority: 2 }]\n", "");
    let (places, reasons) = faults(&alone);
    assert!(places[0].starts_with("sites[0].emergency_trunks"), "{places:?}");
    assert!(reasons[0].contains("911 would go nowhere"), "{reasons:?}");
}

/// EM-82 as warnings.
#[test]
fn unwise_sites_are_warned_about() {
    let rest = "trunks:
- { id: pbx, realm: access, role: customer, sources: [127.9.0.0/16] }
- { id: e1, realm: core, role: emergency, targets: [{ uri: \"sip:127.7.0.1\" }] }
sites:
- { name: A, ip_range: 127.9.1.0/24, emergency_trunk: e1 }
";
    let warnings = compile(&document(rest), 1).unwrap().warnings;
    let paths: Vec<&str> = warnings.iter().map(|w| w.path.as_str()).collect();
    for path in [
        "sites[0].street_address",
        "sites[0].elin",
        "sites[0].emergency_trunks",
        "features.karis_law.notification_contacts",
        "features.karis_law.emergency_trunk_id",
    ] {
        assert!(paths.contains(&path), "{path} not in {paths:?}");
    }
    assert!(warnings.iter().all(|w| w.line.is_some() || w.path.starts_with("features")));
    // Whether a location is missed is `require_location`'s to say.
    for (required, missed) in [(true, true), (false, false)] {
        let law = format!("features: {{ karis_law: {{ require_location: {required} }} }}\n");
        let warnings = compile(&document(&format!("{rest}{law}")), 1).unwrap().warnings;
        for path in ["sites[0].street_address", "features.e911.site_address"] {
            assert_eq!(warnings.iter().any(|w| w.path == path), missed, "{path} {required}");
        }
    }
}

/// Keys of the source documents that stand for something that Ravelin does otherwise.
#[test]
fn keys_without_effect_are_warned_about() {
    let with = LOOPBACK.replace(
        "    service_provider_code: \"1234\"\n",
        "    service_provider_code: \"1234\"\n    originating_tn: \"+13135550100\"\n    \
         verification_service_url: \"https://v.example/\"\n",
    );
    let warnings = compile(&with, 1).unwrap().warnings;
    for key in ["originating_tn", "verification_service_url"] {
        let path = format!("features.stir_shaken.{key}");
        let warned = warnings.iter().find(|warning| warning.path == path);
        assert!(warned.is_some_and(|w| w.line.is_some() && w.reason.contains("no effect")));
    }
}

/// EM-67: the right to emergency calls is a field of the realm.
#[test]
fn realms_have_rights_and_numbers() {
    let realms = "realms:
- { id: access, country: gb, outside_prefix: \"\", emergency_numbers: [\"911\"] }
- { id: core, emergency: allow }
";
    let snapshot = compiled(&document(realms));
    let access = snapshot.realm_by_id("access").unwrap();
    let core = snapshot.realm_by_id("core").unwrap();
    assert!(snapshot.realm(core).unwrap().emergency_allowed);
    let class = |realm, uri: &str| snapshot.classify(realm, uri.as_bytes()).as_str();
    assert_eq!(class(access, "tel:999"), "emergency");
    assert_eq!(class(access, "tel:911"), "emergency");
    assert_eq!(class(access, "tel:9999"), "none");
    assert_eq!(class(core, "tel:999"), "none");
    assert_eq!(class(core, "tel:9911"), "emergency");
    assert!(snapshot.guard_matches(b"tel:999") && snapshot.guard_matches(b"tel:9911"));
    assert_eq!(snapshot.classify(RealmId(99), b"tel:911"), Class::None);
    for (bad, path) in [
        ("country: XX", "realms[0].country"),
        ("outside_prefix: \"9x\"", "realms[0].outside_prefix"),
        ("emergency_numbers: [\"1\"]", "realms[0].emergency_numbers[0]"),
        ("emergency_numbers: [\"933\"]", "realms[0].emergency_numbers[0]"),
    ] {
        let (places, _) = faults(&document(&format!("realms: [{{ id: access, {bad} }}]\n")));
        assert!(places[0].starts_with(path), "{places:?}");
    }
}

#[test]
fn faults_of_features_are_named() {
    let stir = "features.stir_shaken.";
    assert_eq!(
        broken_path("certificate_path: certs/sp.pem", ""),
        format!("{stir}certificate_path")
    );
    assert_eq!(
        broken_path("ca_cert_path: certs/sti-ca.pem", "").as_str(),
        "features.stir_shaken.ca_cert_path"
    );
    for url in ["http://x/a", "https://", "https://u@x/a", "https://x/a#b", "https://x/ a"] {
        let path = broken_path("https://certs.example.com/sp.pem", url);
        assert_eq!(path, format!("{stir}certificate_url"), "{url}");
    }
    assert_eq!(
        broken_path("default_attestation: \"A\"", "default_attestation: \"D\""),
        format!("{stir}default_attestation")
    );
    assert_eq!(
        broken_path("extension: \"5000\", name", "name"),
        "features.karis_law.notification_contacts[0].extension"
    );
    assert_eq!(
        broken_path("phone: \"+15551234567\"", "phone: \"5551234567\""),
        "features.karis_law.notification_contacts[2].phone"
    );
    for (bad, key) in [
        ("escalate_after: soon", "escalate_after"),
        ("smtp_url: \"mail.example:25\", email_from: a@b", "smtp_url"),
        ("smtp_url: \"smtp://mail.example\"", "email_from"),
        ("smtp_url: \"smtp://mail.example\", email_from: nobody", "email_from"),
        ("webhook_url: \"http://hooks.example/x\"", "webhook_url"),
        ("webhook_secret: \"file:hook.key\"", "webhook_secret"),
    ] {
        let with = format!("emergency_notification: {{ {bad} }}\n  e911:");
        let path = broken_path("e911:", &with);
        assert_eq!(path, format!("features.emergency_notification.{key}"), "{bad}");
    }
    let carried = LOOPBACK.replace(
        "e911:",
        "emergency_notification: { webhook_url: \"https://h.example/x\", webhook_secret: \
         \"env:HOOK\", smtp_url: \"smtps://u:p@mail.example\", email_from: \"SBC <s@x.example>\", \
         escalate_after: 1m }\n  e911:",
    );
    assert!(compile(&carried, 1).is_ok());
    assert_eq!(broken_path("listen: 127.0.0.1:8080", "listen: 8080"), "control.listen");
    let (path, reason) = broken("sqlite:ravelin.db", "mysql://root:secret@x/y");
    assert_eq!(path, "control.store");
    assert!(!reason.contains("secret"), "{reason}");
    let sms = format!("{LOOPBACK}\nemergency: {{ sms: {{ enabled: true }} }}\n");
    assert!(faults(&sms).0[0].starts_with("emergency.sms.provider:"));
}

/// ST-10: `default_attestation` lowers and never raises.
#[test]
fn the_ceiling_only_lowers() {
    let attest = |ceiling: &str, trunk: &str, tn: &[u8]| {
        let to = format!("default_attestation: \"{ceiling}\"");
        let snapshot = compiled(&LOOPBACK.replace("default_attestation: \"A\"", &to));
        let found = snapshot.attestation(snapshot.trunk_by_id(trunk).unwrap(), tn);
        format!("{} {}", found.level.unwrap().as_str(), found.rule.0)
    };
    assert_eq!(attest("B", "pbx-detroit", b"+13135550100"), "B customer-entitled-capped");
    assert_eq!(attest("C", "pbx-detroit", b"+12125550100"), "C customer-not-entitled-capped");
    assert_eq!(attest("B", "pbx-detroit", b"+12125550100"), "B customer-not-entitled");
    assert_eq!(attest("A", "carrier-a", b"+13135550100"), "C gateway");
    let off = compiled(&LOOPBACK.replace("enable_signing: true", "enable_signing: false"));
    let pbx = off.trunk_by_id("pbx-detroit").unwrap();
    assert_eq!(off.attestation(pbx, b"+13135550100").level, None);
    assert!(off.trunks.iter().all(|trunk| !trunk.identity.sign));
    let any = compiled(&LOOPBACK.replace("\"+1313555*\"", "\"*\""));
    let level = |tn: &[u8]| any.attestation(any.trunk_by_id("pbx-detroit").unwrap(), tn).level;
    assert_eq!(level(b"+12125550100"), Some(AttestationLevel::A));
    assert_eq!(level(b"alice"), Some(AttestationLevel::B), "a name is no number to be entitled to");
}

#[test]
fn restart_is_needed_for_sockets_and_cores_only() {
    let base = compiled(LOOPBACK);
    let needed = |from: &str, to: &str| {
        assert!(LOOPBACK.contains(from));
        restart_needed(&base, &compiled(&LOOPBACK.replacen(from, to, 1)))
    };
    assert_eq!(needed("cps: 200", "cps: 100"), Vec::<String>::new());
    assert_eq!(needed("realm: access\n    ip_range_start", "ip_range_start"), Vec::<String>::new());
    assert_eq!(needed("node: edge-1", "node: edge-2"), ["node"]);
    assert_eq!(needed("cores: [0, 1]", "cores: [0]"), ["edge.cores"]);
    assert_eq!(needed("127.0.0.20:5060", "127.0.0.20:5080"), ["edge.listeners"]);
    assert_eq!(needed("30000-34999", "30000-34997"), ["edge.media"]);
    let more = "deployment:\n  mode: production\nrealms: [{ id: core }, { id: access }]\n#";
    assert_eq!(
        needed("deployment:\n  mode: production", more),
        Vec::<String>::new(),
        "realms in another order"
    );
}

#[test]
fn limits_of_the_document() {
    let huge = format!("node: {}\n", "x".repeat(crate::yaml::DOCUMENT_MAX_BYTES));
    assert!(faults(&huge).1[0].contains("octets"));
    let trunks: String = (0..=trunks::TRUNKS_MAX)
        .map(|i| {
            format!(
                "- {{ id: t{i}, realm: core, role: carrier, sources: [10.{}.{}.{}] }}\n",
                i >> 16,
                i >> 8 & 255,
                i & 255
            )
        })
        .collect();
    let (places, reasons) = faults(&document(&format!("trunks:\n{trunks}")));
    assert_eq!((places.len(), reasons[0].contains("at most 16384")), (1, true), "{reasons:?}");
    let sites: String =
        (0..2000).map(|_| "- { name: S, ip_range: 10.0.0.0/24, emergency_trunk: x }\n").collect();
    assert_eq!(faults(&document(&format!("sites:\n{sites}"))).0.len(), 1000, "bounded");
}

/// As many of each list as may be compile, or have other faults; one more is refused by the number.
#[test]
fn limits_of_lists_are_kept() {
    use super::{edge, emergency, routes};
    let list = |count: usize, item: &dyn Fn(usize) -> String| -> String {
        (0..count).map(item).collect::<Vec<_>>().join(", ")
    };
    let edge_of = |cores: &str, listeners: &str, media: &str| {
        format!(
            "node: n\ndeployment: {{ mode: production }}\nedge:\n  cores: [{cores}]\n  \
             listeners: [{listeners}]\n  media: [{media}]\n"
        )
    };
    let cores = |count| edge_of(&list(count, &|i| i.to_string()), "", "");
    let listeners = |count| {
        let one = |i: usize| {
            format!(
                "{{ id: l{i}, realm: core, transport: udp, bind: \"127.9.42.1:{}\" }}",
                5060 + i
            )
        };
        edge_of("0", &list(count, &one), "")
    };
    let media = |count| {
        let one = |i: usize| {
            let (high, low) = (i / 256, i % 256);
            format!("{{ realm: core, address: 127.9.{high}.{low}, ports: 20000-20009 }}")
        };
        edge_of("0", "", &list(count, &one))
    };
    let targets = |count| {
        let one = |i: usize| format!("{{ uri: \"sip:127.9.1.{}:{}\" }}", i % 250, 5060 + i / 250);
        let targets = list(count, &one);
        document(&format!(
            "trunks:\n- {{ id: t, realm: core, role: carrier, targets: [{targets}] }}"
        ))
    };
    let trunks_of_route = |count| {
        let trunks = list(count, &|i| format!("t{i}"));
        document(&format!("routes:\n- {{ id: r, from: [x], to: \"*\", trunks: [{trunks}] }}"))
    };
    let trunks_of_site = |count| {
        let trunks = list(count, &|i| format!("{{ id: t{i}, priority: {} }}", i + 1));
        document(&format!(
            "sites:\n- {{ name: S, ip_range: 10.0.0.0/24, emergency_trunks: [{trunks}] }}"
        ))
    };
    type Made<'a> = &'a dyn Fn(usize) -> String;
    let lists: [(&str, usize, Made<'_>); 6] = [
        ("cores", edge::CORES_MAX, &cores),
        ("listeners", edge::LISTENERS_MAX, &listeners),
        ("ranges", edge::MEDIA_RANGES_MAX, &media),
        ("targets", trunks::TARGETS_MAX, &targets),
        ("trunks", routes::ROUTE_TRUNKS_MAX, &trunks_of_route),
        ("trunks", emergency::SITE_TRUNKS_MAX, &trunks_of_site),
    ];
    for (what, most, made) in lists {
        for (count, refused) in [(most, false), (most + 1, true)] {
            let told = format!("{count} {what}; at most {most}");
            let faults = compile(&made(count), 7).err().unwrap_or_default();
            let found = faults.iter().any(|fault| fault.reason.contains(&told));
            assert_eq!(found, refused, "{told}: {faults:?}");
        }
    }
}

/// JSON is YAML.
#[test]
fn json_documents_compile() {
    let document = Document::from_yaml(LOOPBACK).unwrap();
    let json = serde_json::to_string_pretty(&document.config).unwrap();
    assert_eq!(compiled(&json).trunks.len(), 6);
}

/// Every site of a large table is found where it is, in a debug build as well.
#[test]
fn many_sites() {
    let sites: String = (0..5000)
        .map(|i| {
            let (b, c) = (i / 256, i % 256);
            format!(
                "- {{ name: \"S{i}\", ip_range_start: 10.{b}.{c}.1, ip_range_end: \
                     10.{b}.{c}.254, emergency_trunk: e1 }}\n"
            )
        })
        .collect();
    let snapshot = compiled(&document(&format!(
        "trunks:\n- {{ id: pbx, realm: access, role: customer, sources: [10.0.0.0/8] }}\n- {{ id: \
         e1, realm: core, role: emergency, targets: [{{ uri: \"sip:127.7.0.1\" }}] }}\nsites:\n{sites}"
    )));
    let access = snapshot.realm_by_id("access").unwrap();
    for i in 0..5000_u32 {
        let [_, b, c, _] = (i << 8).to_be_bytes();
        let at = |d: u8| snapshot.site(access, [10, b, c, d].into()).map(|m| m.site.0);
        assert_eq!([at(0), at(1), at(254), at(255)], [None, Some(i), Some(i), None]);
    }
    assert_eq!(snapshot.tables.chains.len(), 2, "equal chains are stored once");
}
