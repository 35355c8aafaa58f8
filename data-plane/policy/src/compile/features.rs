//! The compliance blocks.

use ravelin_contract::config::{
    Config, ContactMethod, EmergencyNotification, Mode, NotificationMethod, SecretSource,
    SecretText, SiteAddress, SmsProvider,
};

use super::{
    Faults,
    sites::{country, location_required},
    text,
};
use crate::{Address, AttestationLevel, Stir, numbers::is_e164};

pub(super) fn stir(config: &Config, faults: &mut Faults) -> Stir {
    let Some(raw) = &config.features.stir_shaken else { return Stir::default() };
    let at = |key: &str| format!("features.stir_shaken.{key}");
    let signing = raw.enabled && raw.enable_signing;
    if signing {
        for (key, value) in [
            ("certificate_path", &raw.certificate_path),
            ("private_key_path", &raw.private_key_path),
            ("certificate_url", &raw.certificate_url),
        ] {
            if value.is_none() {
                faults.error(at(key), "missing: signing is enabled and needs it");
            }
        }
    }
    if let Some(url) = &raw.certificate_url
        && let Err(reason) = certificate_url(url)
    {
        faults.error(at("certificate_url"), reason);
    }
    if let Some(tn) = &raw.originating_tn
        && !is_e164(tn)
    {
        faults.error(at("originating_tn"), format!("`{tn}` is not an E.164 number"));
    }
    for (key, set) in [
        ("originating_tn", raw.originating_tn.is_some()),
        ("verification_service_url", raw.verification_service_url.is_some()),
    ] {
        if set {
            let reason = "has no effect: the caller's own number is signed, and verification is \
                          done here";
            faults.warn(at(key), reason);
        }
    }
    if let Some(code) = &raw.service_provider_code
        && (code.is_empty() || code.len() > 16 || !code.bytes().all(|b| b.is_ascii_alphanumeric()))
    {
        let reason = format!("`{code}` is not a service provider code of 1-16 letters and digits");
        faults.error(at("service_provider_code"), reason);
    }
    let ceiling = match raw.default_attestation.as_deref() {
        None => None,
        Some("A" | "a") => Some(AttestationLevel::A),
        Some("B" | "b") => Some(AttestationLevel::B),
        Some("C" | "c") => Some(AttestationLevel::C),
        Some(other) => {
            faults.error(at("default_attestation"), format!("`{other}` is not A, B or C"));
            None
        }
    };
    Stir {
        signing,
        verification: raw.enabled && raw.enable_verification,
        certificate_path: raw.certificate_path.clone(),
        private_key_path: raw.private_key_path.clone(),
        ca_cert_path: raw.ca_cert_path.clone(),
        certificate_url: raw.certificate_url.clone(),
        service_provider_code: raw.service_provider_code.clone(),
        ceiling,
    }
}

/// The x5u: others compare it byte by byte and fetch it, so it has to be plain (T10).
fn certificate_url(url: &str) -> Result<(), String> {
    let complaint = |what: &str| Err(format!("`{url}` {what}"));
    let Some(rest) = url.strip_prefix("https://") else {
        return complaint("does not start with https://");
    };
    if url.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'"' | b'<' | b'>' | b'\\')) {
        return complaint("contains characters that no URL has");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.is_empty() {
        return complaint("has no host");
    }
    if authority.contains('@') || url.contains('#') {
        return complaint("has user information or a fragment");
    }
    Ok(())
}

/// `e911.site_address`: where a caller is who belongs to no site (EM-27).
pub(super) fn default_location(config: &Config) -> Option<Address> {
    let e911 = config.features.e911.as_ref().filter(|e911| e911.enabled)?;
    let raw: &SiteAddress = e911.site_address.as_ref()?;
    let text = |field: &Option<String>| field.clone().filter(|text| !text.trim().is_empty());
    Some(Address {
        street: text(&raw.address),
        building: None,
        floor: None,
        room: None,
        city: text(&raw.city),
        state: text(&raw.state),
        postal_code: text(&raw.zip_code),
        country: country(raw.country.as_deref().unwrap_or("US")).unwrap_or_default(),
    })
}

pub(super) fn check(config: &Config, mode: Mode, faults: &mut Faults) {
    karis_law(config, mode, faults);
    notification(config, faults);
    sms(config, faults);
    control(config, faults);
    let law = config.features.karis_law.is_some();
    if law && location_required(config) && default_location(config).is_none() {
        let reason = "missing: a 911 caller who belongs to no site has no location";
        faults.warn("features.e911.site_address", reason);
    }
    let address = config.features.e911.as_ref().and_then(|e911| e911.site_address.as_ref());
    if let Some(code) = address.and_then(|address| address.country.as_deref()) {
        let path = "features.e911.site_address.country";
        faults.check(path, country(code));
    }
    let buildings = config.features.e911.as_ref().map(|e911| e911.buildings.as_slice());
    for (index, building) in buildings.unwrap_or_default().iter().enumerate() {
        let same = |other: &&ravelin_contract::config::Building| other.id == building.id;
        if buildings.unwrap_or_default().iter().take(index).any(|other| same(&other)) {
            let path = format!("features.e911.buildings[{index}].id");
            faults.conflict(path, format!("building `{}` is listed twice", building.id));
        }
    }
}

fn karis_law(config: &Config, mode: Mode, faults: &mut Faults) {
    let features = &config.features;
    if let Some(raw) = &features.karis_law {
        if !raw.enabled && mode == Mode::Production {
            // K9, EM-2.
            faults.error(
                "features.karis_law.enabled",
                "cannot be switched off in production mode; it may be false in test mode only",
            );
        }
        for (index, contact) in raw.notification_contacts.iter().enumerate() {
            let at = |key: &str| format!("features.karis_law.notification_contacts[{index}].{key}");
            let (key, value) = match contact.method {
                NotificationMethod::InternalCall | NotificationMethod::Page => {
                    ("extension", &contact.extension)
                }
                NotificationMethod::Email => ("email", &contact.email),
                NotificationMethod::Sms => ("phone", &contact.phone),
            };
            if value.is_none() {
                faults.error(at(key), "missing: this type of contact is reached by it");
            }
            reachable(&at, contact.email.as_deref(), contact.phone.as_deref(), faults);
        }
    }
    let told = features.karis_law.as_ref().is_some_and(|k| !k.notification_contacts.is_empty())
        || features.emergency_notification.as_ref().is_some_and(|n| !n.contacts.is_empty());
    if !config.sites.is_empty() && !told {
        faults
            .warn("features.karis_law.notification_contacts", "nobody is told when 911 is dialled");
    }
}

fn reachable(
    at: &impl Fn(&str) -> String,
    email: Option<&str>,
    phone: Option<&str>,
    faults: &mut Faults,
) {
    if let Some(email) = email
        && !is_email(email)
    {
        faults.error(at("email"), format!("`{email}` is not an e-mail address"));
    }
    if let Some(phone) = phone
        && !is_e164(phone)
    {
        faults.error(at("phone"), format!("`{phone}` is not an E.164 number such as +15551234567"));
    }
}

fn notification(config: &Config, faults: &mut Faults) {
    carriers(config, faults);
    let Some(raw) = &config.features.emergency_notification else { return };
    for (index, contact) in raw.contacts.iter().enumerate() {
        let at = |key: &str| format!("features.emergency_notification.contacts[{index}].{key}");
        if contact.name.trim().is_empty() {
            faults.error(at("name"), "is empty");
        }
        faults.in_range(&at("priority"), contact.priority.unwrap_or(1), 1..=5);
        for method in &contact.notification_methods {
            let (key, value) = match method {
                ContactMethod::Call | ContactMethod::Page => ("extension", &contact.extension),
                ContactMethod::Email => ("email", &contact.email),
                ContactMethod::Sms => ("phone", &contact.phone),
            };
            if !raw.methods.contains(method) {
                let reason = "one of them is not among emergency_notification.methods: not used";
                faults.warn(at("notification_methods"), reason);
            }
            // A call can go to an outside number as well.
            let by_phone = *method == ContactMethod::Call && contact.phone.is_some();
            if value.is_none() && !by_phone {
                faults.error(at(key), "missing: a method of this contact needs it");
            }
        }
        reachable(&at, contact.email.as_deref(), contact.phone.as_deref(), faults);
    }
}

/// What carries notifications, and whether each contact has something that can reach it.
fn carriers(config: &Config, faults: &mut Faults) {
    let at = |key: &str| format!("features.emergency_notification.{key}");
    let none = EmergencyNotification::default();
    let raw = config.features.emergency_notification.as_ref().unwrap_or(&none);
    if let Some(after) = &raw.escalate_after {
        faults.check(at("escalate_after"), after.parse());
    }
    let literal = |secret: &SecretText| match secret.source() {
        SecretSource::Literal(text) => Some(text.to_owned()),
        SecretSource::File(_) | SecretSource::Env(_) => None,
    };
    // These texts may hold a password: they are not repeated.
    if let Some(url) = raw.smtp_url.as_ref().and_then(literal)
        && !url.starts_with("smtp://")
        && !url.starts_with("smtps://")
    {
        faults.error(at("smtp_url"), "is neither smtp://HOST nor smtps://HOST nor file:/env:");
    }
    match &raw.email_from {
        None if raw.smtp_url.is_some() => {
            faults.error(at("email_from"), "missing: mail needs a sender");
        }
        Some(from) if !is_mailbox(from) => {
            faults.error(at("email_from"), "is neither user@host nor `Name <user@host>`");
        }
        _ => {}
    }
    if let Some(url) = raw.webhook_url.as_ref().and_then(literal) {
        let local = ["http://127.", "http://[::1]", "http://localhost"];
        let near = local.iter().any(|start| url.starts_with(start));
        if !url.starts_with("https://") && !near {
            let reason = "must be https:// (http:// only to a loopback address) or file:/env:";
            faults.error(at("webhook_url"), reason);
        }
    }
    match (&raw.webhook_url, &raw.webhook_secret) {
        (None, Some(_)) => faults.error(at("webhook_secret"), "is of no use without webhook_url"),
        (Some(_), None) => {
            faults.warn(at("webhook_secret"), "missing: the webhook cannot tell who posts to it");
        }
        _ => {}
    }
    unreached(config, raw, faults);
}

/// Contacts that nothing configured can reach: their notifications fail, each with an alarm.
fn unreached(config: &Config, raw: &EmergencyNotification, faults: &mut Faults) {
    if raw.webhook_url.is_some() {
        return;
    }
    let law = config.features.karis_law.as_ref().map(|law| law.notification_contacts.as_slice());
    let by_mail = law.unwrap_or_default().iter().map(|c| c.method == NotificationMethod::Email);
    let also = raw.contacts.iter().flat_map(|contact| &contact.notification_methods);
    let mut by_mail = by_mail.chain(also.map(|method| *method == ContactMethod::Email));
    if by_mail.any(|by_mail| !by_mail || raw.smtp_url.is_none()) {
        let reason = "missing, or smtp_url for e-mail alone: some contacts cannot be told of 911";
        faults.warn("features.emergency_notification.webhook_url", reason);
    }
}

fn is_mailbox(text: &str) -> bool {
    let address = match text.split_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(address) => address,
            None => return false,
        },
        None => text,
    };
    is_email(address)
}

fn is_email(text: &str) -> bool {
    let graphic = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b','));
    let parts = text.rsplit_once('@');
    graphic && parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
}

fn sms(config: &Config, faults: &mut Faults) {
    let Some(sms) = config.emergency.as_ref().and_then(|e| e.sms.as_ref()) else { return };
    if let Some(twilio) = &sms.twilio
        && !is_e164(&twilio.from_number)
    {
        let reason = format!("`{}` is not an E.164 number", twilio.from_number);
        faults.error("emergency.sms.twilio.from_number", reason);
    }
    if !sms.enabled {
        return;
    }
    match sms.provider {
        None => faults.error("emergency.sms.provider", "missing: twilio or aws_sns"),
        Some(SmsProvider::Twilio) if sms.twilio.is_none() => {
            faults.error("emergency.sms.twilio", "missing: the provider needs it");
        }
        Some(SmsProvider::Twilio | SmsProvider::AwsSns) => {}
    }
}

fn control(config: &Config, faults: &mut Faults) {
    let Some(raw) = &config.control else { return };
    let listen = faults.check("control.listen", control_socket(&raw.listen));
    let store = &raw.store.0;
    let known = ["sqlite:", "postgres://", "postgresql://", "file:", "env:"];
    if !known.iter().any(|scheme| store.starts_with(scheme)) {
        // The text may hold a password: it is not repeated.
        let reason = "is neither sqlite:FILE nor postgres://... nor a reference file:/env:";
        faults.error("control.store", reason);
    }
    if let Some(link) = &raw.link {
        faults.check("control.link.listen", control_socket(&link.listen));
    }
    if raw.tls.is_none() && listen.is_some_and(|listen| !listen.ip().is_loopback()) {
        faults.warn(
            "control.listen",
            "is not a loopback address and has no tls: tokens would travel in clear",
        );
    }
}

/// The control plane may listen on every address.
fn control_socket(text: &str) -> Result<std::net::SocketAddr, String> {
    match text.parse::<std::net::SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() && socket.port() != 0 => Ok(socket),
        _ => text::host_socket(text),
    }
}
