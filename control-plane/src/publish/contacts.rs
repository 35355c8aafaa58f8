//! What a config document says about notification, in the form of the notification queue.

use ravelin_contract::config::{
    ContactMethod, DurationText, EmergencyContact, Features, NotificationContact,
    NotificationMethod,
};

use crate::notify::{Contact, Method, Policy};

/// The rules of notification that the document sets. The ids of its contacts stay the same from one
/// version to the next.
pub(super) fn from_features(features: &Features) -> Policy {
    let mut policy = Policy::default();
    let mut contacts = Vec::new();
    if let Some(law) = features.karis_law.as_ref().filter(|law| law.auto_notify) {
        contacts.extend(law.notification_contacts.iter().map(of_law));
    }
    if let Some(block) = &features.emergency_notification {
        policy.api_contacts_on_911 = block.enabled && block.notify_on_911;
        policy.methods = block.methods.iter().copied().map(method).collect();
        if let Some(Ok(after)) = block.escalate_after.as_ref().map(DurationText::parse) {
            policy.escalate_after = after;
        }
        if policy.api_contacts_on_911 {
            contacts.extend(block.contacts.iter().map(of_block));
        }
    }
    policy.contacts = contacts.into();
    policy
}

/// The contacts that the document names and that are told of 911 calls.
#[must_use]
pub fn contacts_of(features: &Features) -> Vec<Contact> {
    from_features(features).contacts.to_vec()
}

fn of_law(contact: &NotificationContact) -> Contact {
    let method = match contact.method {
        NotificationMethod::InternalCall => Method::Call,
        NotificationMethod::Page => Method::Page,
        NotificationMethod::Email => Method::Email,
        NotificationMethod::Sms => Method::Sms,
    };
    let mut all = Contact {
        id: String::new(),
        name: String::new(),
        extension: contact.extension.clone(),
        phone: contact.phone.clone(),
        email: contact.email.clone(),
        priority: 1,
        notification_methods: vec![method],
        site_id: None,
        source: "config".to_owned(),
        by_law: true,
    };
    let address = all.address(method).unwrap_or_default().to_owned();
    all.id = format!("config:{}:{address}", method.name());
    all.name = contact.name.clone().unwrap_or(address);
    all
}

fn of_block(contact: &EmergencyContact) -> Contact {
    Contact {
        id: format!("config:{}", contact.name),
        name: contact.name.clone(),
        extension: contact.extension.clone(),
        phone: contact.phone.clone(),
        email: contact.email.clone(),
        priority: contact.priority.unwrap_or(1),
        notification_methods: contact.notification_methods.iter().copied().map(method).collect(),
        site_id: None,
        source: "config".to_owned(),
        by_law: false,
    }
}

fn method(method: ContactMethod) -> Method {
    match method {
        ContactMethod::Call => Method::Call,
        ContactMethod::Page => Method::Page,
        ContactMethod::Email => Method::Email,
        ContactMethod::Sms => Method::Sms,
    }
}
