//! Secrets taken out of what is handed to an auditor.

use serde_json::Value;

/// What stands in place of a secret.
pub const HIDDEN: &str = "***REDACTED***";
/// A field whose name contains one of these is not shown.
const NAMES: [&str; 6] = ["password", "secret", "api_key", "private_key", "auth_token", "_url"];

/// Takes secrets out of a JSON value: in maps, in lists, and inside texts.
pub fn value(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                let name = name.to_ascii_lowercase();
                if field.is_string() && NAMES.iter().any(|part| name.contains(part)) {
                    *field = HIDDEN.into();
                } else {
                    self::value(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(self::value),
        Value::String(text) => *text = self::text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Takes API tokens and the passwords of URLs out of a text.
#[must_use]
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        out.push_str(&word_without_secrets(word));
    }
    out
}

/// Whether a text holds an API token or a password.
#[must_use]
pub fn holds_secret(text: &str) -> bool {
    self::text(text) != text
}

fn word_without_secrets(word: &str) -> String {
    let mut rest = word;
    let mut out = String::with_capacity(word.len());
    while let Some(at) = rest.find("rvl_") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let length =
            from.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(from.len());
        let (token, after) = from.split_at(length);
        // A token has a second part; its public part alone is no secret.
        let is_token = token["rvl_".len()..].split_once('_').is_some_and(|(_, own)| own.len() > 8);
        out.push_str(if is_token { HIDDEN } else { token });
        rest = after;
    }
    out.push_str(rest);
    let Some((scheme, tail)) = out.split_once("://") else { return out };
    let authority = tail.split(['/', '?', '#', '"', '\'']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            format!("{scheme}://{HIDDEN}{}", &tail[user.len()..])
        }
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let token = format!("rvl_{}_{}", "ab12".repeat(4), "0f".repeat(32));
        let mut json = serde_json::json!({
            "site": "Detroit", "before": {"auth_token": "hunter2"},
            "list": [{"password": "hunter2"}, format!("use {token}, then"), 7],
            "private_key_path": "certs/sp.key", "elin": "+13135551000",
            "text": "postgres://u:hunter2@db.example/x and https://x.example/a@b",
        });
        value(&mut json);
        let shown = json.to_string();
        assert!(!shown.contains("hunter2") && !shown.contains(&token), "{shown}");
        assert_eq!(json["site"], "Detroit");
        assert_eq!(json["elin"], "+13135551000");
        assert_eq!(json["list"][1], format!("use {HIDDEN}, then"));
        assert_eq!(
            json["text"],
            format!("postgres://{HIDDEN}@db.example/x and https://x.example/a@b")
        );
        for plain in ["", "rvl_ab12", "a  b\n", "x@y://", "sip:911@x"] {
            assert_eq!(text(plain), plain);
            assert!(!holds_secret(plain));
        }
    }
}
