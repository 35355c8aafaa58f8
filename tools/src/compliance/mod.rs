//! `ravelin verify`, `report` and `soc2`: what the source documents call compliance scripts. They
//! ask the control plane, and judge nothing that it did not record.

pub(crate) mod args;
mod layout;
pub(crate) mod report;
pub(crate) mod soc2;
pub(crate) mod verify;

/// Text of a JSON value as a person reads it; `-` for null.
fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Bool(true) => "yes".to_owned(),
        serde_json::Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}
