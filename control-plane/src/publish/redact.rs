//! Config documents for readers who may not change them: literal secrets are left out.

use ravelin_contract::config::{SecretSource, SecretText};
use ravelin_policy::Document;

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// The document with its literal secrets replaced. References (`file:`, `env:`) stay: they say
/// where a secret is, not what it is. Nothing if the text is not a document.
#[must_use]
pub fn redacted(text: &str) -> Option<String> {
    let mut document = Document::from_yaml(text).ok()?;
    secrets(&mut document).into_iter().for_each(hide);
    Some(document.to_yaml())
}

/// Every secret of a document, literal or referred to.
pub(crate) fn secrets(document: &mut Document) -> Vec<&mut SecretText> {
    let config = &mut document.config;
    let store = config.control.as_mut().map(|control| &mut control.store);
    let mut found: Vec<&mut SecretText> =
        store.into_iter().filter(|store| store.0.contains('@')).collect();
    if let Some(notification) = &mut config.features.emergency_notification {
        let urls = [&mut notification.smtp_url, &mut notification.webhook_url];
        found.extend(urls.into_iter().flatten());
        found.extend(&mut notification.webhook_secret);
    }
    let sms = config.emergency.as_mut().and_then(|emergency| emergency.sms.as_mut());
    found.extend(sms.and_then(|sms| sms.twilio.as_mut()).map(|twilio| &mut twilio.auth_token));
    found
}

fn hide(secret: &mut SecretText) {
    if matches!(secret.source(), SecretSource::Literal(_)) {
        HIDDEN.clone_into(&mut secret.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every secret that the types know is one that [`redacted`] knows: a new one fails here.
    #[test]
    fn every_secret_of_the_document_is_known_here() {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/contract/src/config");
        let mut secrets = Vec::new();
        for entry in std::fs::read_dir(sources).unwrap() {
            let path = entry.unwrap().path();
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let field = line.trim().strip_prefix("pub ").and_then(|rest| rest.split_once(": "));
                if let Some((name, kind)) = field
                    && kind.contains("SecretText")
                {
                    secrets.push(name.to_owned());
                }
            }
        }
        secrets.sort();
        assert_eq!(secrets, ["auth_token", "smtp_url", "store", "webhook_secret", "webhook_url"]);
    }

    #[test]
    fn what_is_no_document_is_not_shown() {
        assert_eq!(redacted("- : ["), None);
    }
}
