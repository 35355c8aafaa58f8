//! What is said: one set of facts (47 CFR 9.3: that the call was made, a callback number, the
//! location conveyed; EM-77, K4), as an e-mail, as one line of text, and as JSON for the webhook.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    queue::{TRIGGER_ABANDONED, TRIGGER_CALL, TRIGGER_NOT_DELIVERED, TRIGGER_TEST},
    work::{Told, Work},
};
use crate::clock;

/// Version of the JSON body; a change that breaks a reader raises it.
const VERSION: u32 = 1;
/// What is said where the location is not known (compliance-systems 2.2).
const NO_LOCATION: &str = "Location not registered";

/// Who is told, as the webhook sees it.
#[derive(Debug, Serialize)]
pub struct Recipient<'a> {
    pub id: &'a str,
    pub name: &'a str,
    /// Extension, number or e-mail address by which the method reaches this contact.
    pub address: &'a str,
    pub priority: u64,
}

/// The facts of one delivery: the body of the webhook's POST.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    pub version: u32,
    /// The same for every attempt of this delivery.
    pub id: String,
    pub notification_id: &'a str,
    /// `REAL` or `TEST`.
    pub class: &'static str,
    pub trigger_type: &'a str,
    pub method: &'static str,
    /// Priority of overhead pages; only for the method `page`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_priority: Option<&'a str>,
    pub attempt: u64,
    pub contact: Recipient<'a>,
    /// When it happened, RFC 3339 in UTC.
    pub time: String,
    /// Everything in one line, for a display or a voice.
    pub text: String,
    /// Who asked for it: a node, or the holder of a token.
    pub actor: &'a str,
    pub call_id: Option<&'a str>,
    /// What was dialled.
    pub number: Option<String>,
    pub caller_extension: Option<String>,
    /// Reaches the caller: the site's ELIN, else the caller's own number.
    pub callback_number: Option<String>,
    pub location: Option<String>,
    pub elin: Option<String>,
    pub site: Option<String>,
    pub site_id: Option<u64>,
    pub trunk: Option<String>,
    pub psap_number: Option<String>,
    pub node: Option<String>,
    pub details: &'a Map<String, Value>,
}

impl<'a> Message<'a> {
    #[must_use]
    pub fn new(work: &'a Work, page_priority: &'a str) -> Self {
        let told = &work.told;
        let text = |name: &str| told.details.get(name).and_then(plain);
        let elin = text("callback");
        let page = work.method == super::Method::Page;
        let mut message = Self {
            version: VERSION,
            id: work.idempotency_key(),
            notification_id: &told.id,
            class: if told.is_test() { "TEST" } else { "REAL" },
            trigger_type: &told.trigger,
            method: work.method.name(),
            page_priority: page.then_some(page_priority),
            attempt: work.attempt,
            contact: Recipient {
                id: &work.contact_id,
                name: &work.contact_name,
                address: &work.address,
                priority: work.priority,
            },
            time: clock::rfc3339(told.at_ms),
            text: String::new(),
            actor: &told.actor,
            call_id: told.call.as_deref(),
            number: text("number"),
            caller_extension: text("extension"),
            callback_number: elin.clone().or_else(|| text("extension")),
            location: text("location").or_else(|| is_call(told).then(|| NO_LOCATION.to_owned())),
            elin,
            site: text("site"),
            site_id: told.details.get("site_id").and_then(Value::as_u64),
            trunk: text("trunk"),
            psap_number: text("psap"),
            node: text("node"),
            details: &told.details,
        };
        message.text = message.line();
        message
    }

    /// `EMERGENCY ALERT: 911_call`, with a mark in front if it is only a test.
    #[must_use]
    pub fn subject(&self) -> String {
        let mark = if self.class == "TEST" { "[TEST] " } else { "" };
        format!("{mark}EMERGENCY ALERT: {}", self.trigger_type)
    }

    fn headline(&self) -> &'static str {
        match self.trigger_type {
            TRIGGER_CALL => "A 911 call was made.",
            TRIGGER_NOT_DELIVERED => "A 911 call was NOT DELIVERED: no emergency trunk took it.",
            TRIGGER_ABANDONED => "A 911 call was given up before it was answered.",
            TRIGGER_TEST => "This is a test. Nobody is in danger and nothing needs to be done.",
            "panic_button" => "A panic button was pressed.",
            _ => "An emergency was reported.",
        }
    }

    /// Label and value of every fact that is known.
    fn facts(&self) -> Vec<(&'static str, &str)> {
        [
            ("Dialled", self.number.as_deref()),
            ("Caller", self.caller_extension.as_deref()),
            ("Callback number", self.callback_number.as_deref()),
            ("Location", self.location.as_deref()),
            ("Site", self.site.as_deref()),
            ("ELIN", self.elin.as_deref()),
            ("Trunk", self.trunk.as_deref()),
            ("PSAP number", self.psap_number.as_deref()),
            ("Call id", self.call_id),
            ("Node", self.node.as_deref()),
        ]
        .into_iter()
        .filter_map(|(label, value)| Some((label, value?)))
        .collect()
    }

    /// Details that no fact shows.
    fn other_details(&self) -> impl Iterator<Item = (&str, String)> {
        const SHOWN: [&str; 8] =
            ["number", "extension", "callback", "location", "site", "trunk", "psap", "node"];
        self.details
            .iter()
            .filter(|(name, _)| !SHOWN.contains(&name.as_str()))
            .filter_map(|(name, value)| Some((name.as_str(), plain(value)?)))
    }

    fn line(&self) -> String {
        let mut line = format!("{} {} Time: {}.", self.subject(), self.headline(), self.time);
        for (label, value) in self.facts() {
            if !matches!(label, "Call id" | "Node" | "Trunk" | "ELIN") {
                line.push_str(&format!(" {label}: {value}."));
            }
        }
        line
    }

    /// The text of an e-mail.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body = format!("{}\r\n\r\n", self.headline());
        let mut put = |label: &str, value: &str| body.push_str(&format!("{label}: {value}\r\n"));
        put("Type", self.trigger_type);
        put("Class", self.class);
        put("Time", &self.time);
        for (label, value) in self.facts() {
            put(label, value);
        }
        for (label, value) in self.other_details() {
            put(label, &value);
        }
        put("Contact", self.contact.name);
        put("Priority", &self.contact.priority.to_string());
        put("Notification id", self.notification_id);
        if self.class == "REAL" {
            body.push_str("\r\nPlease respond immediately.\r\n");
        }
        body
    }
}

fn is_call(told: &Told) -> bool {
    matches!(told.trigger.as_str(), TRIGGER_CALL | TRIGGER_NOT_DELIVERED | TRIGGER_ABANDONED)
}

/// A value as text without control characters: what was dialled must not forge a line.
fn plain(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::notify::Method;

    fn work(trigger: &str, details: Value) -> Work {
        Work {
            told: Told {
                id: "n-1".to_owned(),
                at_ms: 1_734_256_800_000,
                trigger: trigger.to_owned(),
                call: Some("call-1".to_owned()),
                actor: "edge-1".to_owned(),
                details: details.as_object().unwrap().clone(),
            },
            contact_id: "config:desk".to_owned(),
            contact_name: "Security Desk".to_owned(),
            method: Method::Page,
            address: "5000".to_owned(),
            priority: 1,
            attempt: 2,
        }
    }

    #[test]
    fn a_911_call_says_all_that_the_rule_asks_for() {
        let details = json!({"number": "911", "extension": "1001", "callback": "+13135551000",
            "location": "1234 Industrial Blvd, Floor 1, Detroit, MI", "site": "Detroit Factory",
            "site_id": 3, "trunk": "detroit_emergency", "psap": "911", "node": "edge-1",
            "source": "10.0.0.1:5060"});
        let work = work(TRIGGER_CALL, details);
        let message = Message::new(&work, "emergency");
        assert_eq!(message.subject(), "EMERGENCY ALERT: 911_call");
        for fact in [
            "A 911 call was made.\r\n",
            "Callback number: +13135551000\r\n",
            "Location: 1234 Industrial Blvd, Floor 1, Detroit, MI\r\n",
            "ELIN: +13135551000\r\n",
            "Site: Detroit Factory\r\n",
            "Trunk: detroit_emergency\r\n",
            "Call id: call-1\r\n",
            "Time: 2024-12-15T10:00:00Z\r\n",
            "source: 10.0.0.1:5060\r\n",
            "respond immediately",
        ] {
            assert!(message.body().contains(fact), "{fact}: {}", message.body());
        }
        let json = serde_json::to_value(&message).unwrap();
        assert_eq!(json["class"], "REAL");
        assert_eq!(json["callback_number"], "+13135551000");
        assert_eq!((&json["site_id"], &json["page_priority"]), (&json!(3), &json!("emergency")));
        assert_eq!(json["contact"]["address"], "5000");
        assert!(json["text"].as_str().unwrap().contains("Location: 1234 Industrial Blvd"));
    }

    #[test]
    fn without_site_the_callers_own_number_is_the_callback() {
        let work = work(TRIGGER_CALL, json!({"number": "911", "extension": "+13135551001"}));
        let message = Message::new(&work, "emergency");
        assert_eq!(message.callback_number.as_deref(), Some("+13135551001"));
        assert_eq!(message.location.as_deref(), Some(NO_LOCATION));
        assert_eq!(message.elin, None);
    }

    #[test]
    fn a_test_is_marked_and_a_dialled_string_forges_nothing() {
        let work = work(TRIGGER_TEST, json!({"number": "911\r\nLocation: elsewhere"}));
        let message = Message::new(&work, "emergency");
        assert_eq!(message.subject(), "[TEST] EMERGENCY ALERT: test");
        assert_eq!(message.class, "TEST");
        assert!(!message.body().contains("\nLocation"), "{}", message.body());
        assert!(!message.body().contains("respond"), "{}", message.body());
    }
}
