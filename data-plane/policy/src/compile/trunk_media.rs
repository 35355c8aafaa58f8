//! Media settings of trunks.

use ravelin_contract::config;

use super::{Faults, edge};
use crate::{Ice, MediaAction, Role, RtpTimeout, Srtp, SrtpSuite, TrunkMedia};

const RTP_TIMEOUT_MIN_MS: u64 = 1_000;
const RTP_TIMEOUT_MAX_MS: u64 = 86_400_000;

pub(super) fn build(raw: &config::Trunk, index: u16, faults: &mut Faults) -> TrunkMedia {
    let media = raw.media.clone().unwrap_or_default();
    let at = |key: &str| format!("trunks[{index}].media.{key}");
    let srtp = media.srtp.unwrap_or_default();
    for (number, suite) in media.srtp_suites.iter().enumerate() {
        if media.srtp_suites.iter().take(number).any(|earlier| earlier == suite) {
            let reason = format!("`{}` is listed twice", suite.as_str());
            faults.conflict(at(&format!("srtp_suites[{number}]")), reason);
        }
    }
    if matches!(srtp, Srtp::Pass | Srtp::Off) && !media.srtp_suites.is_empty() {
        let reason = "no effect: with `srtp: pass` and `srtp: off` we encrypt nothing ourselves";
        faults.warn(at("srtp_suites"), reason);
    }
    let suites =
        if media.srtp_suites.is_empty() { SrtpSuite::ALL.into() } else { media.srtp_suites.into() };
    let after = media.rtp_timeout.as_ref().and_then(|text| {
        let path = at("rtp_timeout");
        edge::duration(&path, text, RTP_TIMEOUT_MIN_MS, RTP_TIMEOUT_MAX_MS, faults)
    });
    if media.rtp_timeout.is_none() && media.rtp_timeout_action.is_some() {
        faults.warn(at("rtp_timeout_action"), "no effect: there is no `rtp_timeout`");
    }
    let action = media.rtp_timeout_action.unwrap_or(MediaAction::Alarm);
    if action == MediaAction::Bye && raw.role == Role::Emergency {
        let reason = "no effect: an emergency call is never ended for silence, it gets the alarm";
        faults.warn(at("rtp_timeout_action"), reason);
    }
    let ice = media.ice.unwrap_or_default();
    match media.failure_action {
        Some(_) if srtp != Srtp::Dtls && ice == Ice::Off => {
            faults.warn(at("failure_action"), "no effect: there is neither DTLS nor ICE");
        }
        Some(MediaAction::Bye) if raw.role == Role::Emergency => {
            let reason = "no effect: an emergency call is never ended for it, it gets the alarm";
            faults.warn(at("failure_action"), reason);
        }
        _ => {}
    }
    TrunkMedia {
        nat: media.nat.unwrap_or_default(),
        srtp,
        suites,
        ice,
        rtp_timeout: after.map(|after| RtpTimeout { after, action }),
        failure_action: media.failure_action.unwrap_or(MediaAction::Bye),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ravelin_contract::config::Dscp;

    use crate::{Ice, MediaAction, Nat, RtpTimeout, Srtp, SrtpSuite, compile, restart_needed};

    const LOOPBACK: &str = include_str!("../../../../docs/examples/loopback.yml");

    /// The example with `media` at its second trunk, a carrier.
    fn with_media(media: &str) -> String {
        let realm = "  - id: carrier-a\n    realm: core\n";
        assert!(LOOPBACK.contains(realm));
        LOOPBACK.replacen(realm, &format!("{realm}    media:\n      {media}\n"), 1)
    }

    #[test]
    fn media_of_a_trunk_is_as_written_and_absent_keys_have_defaults() {
        let snapshot = compile(LOOPBACK, 1).unwrap().snapshot;
        let media = &snapshot.trunks[1].media;
        assert_eq!((media.nat, media.srtp, media.ice), (Nat::Signalled, Srtp::Pass, Ice::Off));
        assert_eq!(*media.suites, SrtpSuite::ALL);
        assert_eq!((media.rtp_timeout, media.failure_action), (None, MediaAction::Bye));

        let text = "{ nat: latch, srtp: sdes, ice: lite, rtp_timeout: 30s, srtp_suites: \
                    [AES_CM_128_HMAC_SHA1_32, AEAD_AES_256_GCM], rtp_timeout_action: bye, \
                    failure_action: nothing }";
        let snapshot = compile(&with_media(text), 1).unwrap().snapshot;
        let media = &snapshot.trunks[1].media;
        assert_eq!((media.nat, media.srtp, media.ice), (Nat::Latch, Srtp::Sdes, Ice::Lite));
        assert_eq!(*media.suites, [SrtpSuite::AesCm128HmacSha1_32, SrtpSuite::AeadAes256Gcm]);
        let timeout = RtpTimeout { after: Duration::from_secs(30), action: MediaAction::Bye };
        assert_eq!(media.rtp_timeout, Some(timeout));
        assert_eq!(media.failure_action, MediaAction::Nothing);
        for (word, value) in [
            ("pass", Srtp::Pass),
            ("off", Srtp::Off),
            ("accept", Srtp::Accept),
            ("dtls", Srtp::Dtls),
        ] {
            let snapshot = compile(&with_media(&format!("srtp: {word}")), 1).unwrap().snapshot;
            assert_eq!(snapshot.trunks[1].media.srtp, value, "{word}");
        }
        for suite in SrtpSuite::ALL {
            let text = format!("{{ srtp: accept, srtp_suites: [{}] }}", suite.as_str());
            let snapshot = compile(&with_media(&text), 1).unwrap().snapshot;
            assert_eq!(*snapshot.trunks[1].media.suites, [suite]);
        }
    }

    #[test]
    fn faults_of_media_are_named_with_their_line() {
        for (text, path) in [
            ("{ nat: nated }", "trunks[1].media.nat"),
            ("{ srtp: true }", "trunks[1].media.srtp"),
            ("{ srtp: sdes, srtp_suites: [NULL] }", "trunks[1].media.srtp_suites[0]"),
            (
                "{ srtp: dtls, srtp_suites: [AEAD_AES_128_GCM, AEAD_AES_128_GCM] }",
                "trunks[1].media.srtp_suites[1]",
            ),
            ("{ ice: full }", "trunks[1].media.ice"),
            ("{ rtp_timeout: 30 }", "trunks[1].media.rtp_timeout"),
            ("{ rtp_timeout: 500ms }", "trunks[1].media.rtp_timeout"),
            ("{ rtp_timeout: 2d }", "trunks[1].media.rtp_timeout"),
            (
                "{ rtp_timeout: 9s, rtp_timeout_action: hangup }",
                "trunks[1].media.rtp_timeout_action",
            ),
            ("{ ice: lite, failure_action: hangup }", "trunks[1].media.failure_action"),
            ("{ encryption: sdes }", "trunks[1].media.encryption"),
        ] {
            let document = with_media(text);
            let line = document.lines().position(|line| line.contains(text)).unwrap() + 1;
            let faults = compile(&document, 1).expect_err(text);
            let places: Vec<_> = faults.iter().map(|f| (f.path.as_str(), f.line)).collect();
            assert_eq!(places, [(path, u32::try_from(line).ok())], "{text}: {faults:?}");
        }
    }

    #[test]
    fn a_key_without_effect_is_a_warning() {
        for (text, path) in [
            ("{ srtp_suites: [AEAD_AES_128_GCM] }", "trunks[1].media.srtp_suites"),
            ("{ srtp: off, srtp_suites: [AEAD_AES_128_GCM] }", "trunks[1].media.srtp_suites"),
            ("{ rtp_timeout_action: bye }", "trunks[1].media.rtp_timeout_action"),
            ("{ srtp: sdes, failure_action: bye }", "trunks[1].media.failure_action"),
        ] {
            let warnings = compile(&with_media(text), 1).unwrap().warnings;
            assert!(warnings.iter().any(|w| w.path == path), "{text}: {warnings:?}");
        }
        let emergency = "  - id: emergency\n    realm: core\n";
        assert!(LOOPBACK.contains(emergency));
        for (media, key) in [
            ("rtp_timeout: 9s, rtp_timeout_action: bye", "media.rtp_timeout_action"),
            ("srtp: dtls, failure_action: bye", "media.failure_action"),
        ] {
            let media = format!("{emergency}    media: {{ {media} }}\n");
            let document = LOOPBACK.replacen(emergency, &media, 1);
            let warnings = compile(&document, 1).unwrap().warnings;
            assert!(warnings.iter().any(|w| w.path.ends_with(key)), "{warnings:?}");
        }
    }

    #[test]
    fn code_points_belong_to_a_realm_are_six_bits_and_need_a_restart() {
        let with = |dscp: &str| {
            let realms = format!("realms: [{{ id: core, dscp: {dscp} }}]\ntrunks:");
            LOOPBACK.replacen("trunks:", &realms, 1)
        };
        let plain = compile(LOOPBACK, 1).unwrap().snapshot;
        let marked = compile(&with("{ signalling: 26, media: 46 }"), 1).unwrap().snapshot;
        let dscp = |name: &str| marked.realm(marked.realm_by_id(name).unwrap()).unwrap().dscp;
        assert_eq!(dscp("core"), Dscp { signalling: Some(26), media: Some(46) });
        assert_eq!(dscp("access"), Dscp::default());
        let listeners: Vec<_> = marked.listeners.iter().map(|l| l.dscp).collect();
        assert_eq!(listeners, [None, None, Some(26), Some(26)]);
        let ranges: Vec<_> = marked.media.iter().map(|range| range.dscp).collect();
        assert_eq!(ranges, [None, Some(46)]);
        assert_eq!(restart_needed(&plain, &marked), ["realms.dscp"]);
        assert_eq!(restart_needed(&marked, &marked), Vec::<String>::new());
        for (dscp, path) in [
            ("{ media: 64 }", "realms[0].dscp.media"),
            ("{ signalling: 255 }", "realms[0].dscp.signalling"),
            ("{ signalling: 256 }", "realms[0].dscp.signalling"),
            ("{ video: 34 }", "realms[0].dscp.video"),
        ] {
            let faults = compile(&with(dscp), 1).expect_err(dscp);
            assert_eq!(faults[0].path, path, "{faults:?}");
            assert!(faults[0].line.is_some());
        }
    }
}
