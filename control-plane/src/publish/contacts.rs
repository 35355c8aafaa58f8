//! The contacts that a config document names, in the form of the notification queue.

use ravelin_contract::config::{ContactMethod, Features, NotificationMethod};

use crate::notify::{Contact, Method};

/// `karis_law.notification_contacts` and `emergency_notification.contacts`, unless notification is
/// switched off there. The ids stay the same from one version to the next.
#[must_use]
pub fn from_features(features: &Features) -> Vec<Contact> {
    let mut contacts = Vec::new();
    if let Some(law) = features.karis_law.as_ref().filter(|law| law.auto_notify) {
        for contact in &law.notification_contacts {
            let method = match contact.method {
                NotificationMethod::InternalCall => Method::Call,
                NotificationMethod::Page => Method::Page,
                NotificationMethod::Email => Method::Email,
                NotificationMethod::Sms => Method::Sms,
            };
            let address =
                [&contact.extension, &contact.email, &contact.phone].into_iter().flatten().next();
            let address = address.cloned().unwrap_or_default();
            contacts.push(Contact {
                id: format!("config:{}:{address}", method.name()),
                name: contact.name.clone().unwrap_or(address),
                extension: contact.extension.clone(),
                phone: contact.phone.clone(),
                email: contact.email.clone(),
                priority: 1,
                notification_methods: vec![method],
                site_id: None,
                source: "config".to_owned(),
            });
        }
    }
    let notification = features.emergency_notification.as_ref();
    if let Some(notification) = notification.filter(|block| block.enabled && block.notify_on_911) {
        for contact in &notification.contacts {
            contacts.push(Contact {
                id: format!("config:{}", contact.name),
                name: contact.name.clone(),
                extension: contact.extension.clone(),
                phone: contact.phone.clone(),
                email: contact.email.clone(),
                priority: contact.priority.unwrap_or(1),
                notification_methods: contact
                    .notification_methods
                    .iter()
                    .map(|method| match method {
                        ContactMethod::Call => Method::Call,
                        ContactMethod::Page => Method::Page,
                        ContactMethod::Email => Method::Email,
                        ContactMethod::Sms => Method::Sms,
                    })
                    .collect(),
                site_id: None,
                source: "config".to_owned(),
            });
        }
    }
    contacts
}
