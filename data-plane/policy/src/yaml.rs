//! YAML text to the raw config, and places in the text for paths.
//!
//! The raw types carry no positions. When something is wrong, the text is walked once more to find
//! the lines of the paths in question; a valid document never pays for that.

use std::collections::{HashMap, HashSet};

use ravelin_contract::{config::Config, link::FieldError};
use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser};

/// Largest document. It has to travel in one frame to the edge.
pub(crate) const DOCUMENT_MAX_BYTES: usize = 60 * 1024 * 1024;

/// Nesting of maps and sequences. The schema needs seven.
const DEPTH_MAX: usize = 32;

/// A document of the largest size cannot hold more nodes than octets.
const NODES_MAX: usize = DOCUMENT_MAX_BYTES;

/// Key of YAML's merge: the map has more keys than it shows.
const MERGE: &str = "<<";

/// Faults of shape that are reported of one document.
const FAULTS_MAX: usize = 1000;

/// Anchors exist to be reused by hand, a few times.
const ALIASES_MAX: usize = 10_000;

/// Reads the raw config; faults of shape come with path and line.
pub(crate) fn read(text: &str) -> Result<Config, Vec<FieldError>> {
    if text.len() > DOCUMENT_MAX_BYTES {
        let reason =
            format!("document has {} octets; at most {DOCUMENT_MAX_BYTES} are read", text.len());
        return Err(vec![FieldError { path: String::new(), line: None, reason }]);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: NODES_MAX,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: DOCUMENT_MAX_BYTES,
            max_depth: DEPTH_MAX,
            max_documents: 1,
            max_aliases: ALIASES_MAX,
        },
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let mut faults = wrong_keys(text);
        let fault = describe(text, &error);
        // A missing key has no place of its own; serde gives one near by.
        let known = faults
            .iter()
            .any(|f| f.reason == fault.reason || f.path == fault.path && f.line == fault.line);
        if !known {
            faults.push(fault);
        }
        faults.sort_by_key(|f| f.line);
        faults
    })
}

/// Puts lines to the paths of `faults`; a path that is not in the text gets the line of the
/// nearest thing above it that is, at last of the document itself.
pub(crate) fn add_lines(text: &str, faults: &mut [FieldError]) {
    if faults.is_empty() {
        return;
    }
    let mut wanted: HashMap<String, Option<u32>> = HashMap::new();
    for fault in &*faults {
        for path in ancestors(&fault.path) {
            wanted.entry(path.to_owned()).or_default();
        }
    }
    walk(text, |step| {
        if let Step::At { path, line, .. } = step
            && let Some(slot) = wanted.get_mut(path)
        {
            slot.get_or_insert(line);
        }
    });
    for fault in faults {
        let found = ancestors(&fault.path).find_map(|path| wanted.get(path).copied().flatten());
        fault.line = found.or(Some(1));
    }
}

/// `a.b[1].c`, `a.b[1]`, `a.b`, `a`.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path).filter(|p| !p.is_empty());
    std::iter::from_fn(move || {
        let current = rest?;
        rest = current.rfind(['.', '[']).and_then(|at| current.get(..at));
        Some(current)
    })
}

fn describe(text: &str, error: &serde_saphyr::Error) -> FieldError {
    let options = serde_saphyr::render_options! {
        formatter: &serde_saphyr::UserMessageFormatter,
        snippets: serde_saphyr::SnippetMode::Off,
    };
    let rendered = error.render_with_options(options);
    // The position is a field of its own.
    let reason = match rendered.rfind(" at line ") {
        Some(at) => rendered.get(..at).unwrap_or(&rendered).to_owned(),
        None => rendered,
    };
    let place = error.location().filter(|l| l.line() > 0);
    let line = place.and_then(|l| u32::try_from(l.line()).ok());
    let path = place.map(|l| path_at(text, l.line(), l.column())).unwrap_or_default();
    FieldError { path, line, reason }
}

/// Path of the last node that starts at or before a position (both counted from 1).
fn path_at(text: &str, line: u64, column: u64) -> String {
    let mut found = String::new();
    walk(text, |step| {
        if let Step::At { path, line: l, column: c } = step
            && (u64::from(l), u64::from(c)) <= (line, column)
        {
            path.clone_into(&mut found);
        }
    });
    found
}

/// What the walk over a document meets.
enum Step<'a> {
    /// A key of a map or an item of a sequence.
    At { path: &'a str, line: u32, column: u32 },
    /// A key, given before [`Step::At`] of the same key.
    Key { parent: &'a [Segment], key: &'a str },
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Key(String),
    Index(usize),
}

/// A map or sequence that the walk is inside of.
enum Frame {
    Map { expects_key: bool },
    Sequence { next: usize },
}

/// Walks the nodes of the first document in order. Ends silently where the text stops being YAML:
/// what was found until then is still true.
fn walk(text: &str, mut visit: impl FnMut(Step<'_>)) {
    let mut frames: Vec<Frame> = Vec::new();
    let mut segments: Vec<Segment> = Vec::new();
    let mut path = String::new();
    for next in Parser::new_from_str(text) {
        let Ok((event, span)) = next else { return };
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        let column = u32::try_from(span.start.col()).unwrap_or(u32::MAX).saturating_add(1);
        match &event {
            Event::Scalar(value, ..) => {
                if let Some(Frame::Map { expects_key: expects_key @ true }) = frames.last_mut() {
                    *expects_key = false;
                    visit(Step::Key { parent: &segments, key: value });
                    segments.push(Segment::Key(value.clone().into_owned()));
                    write_path(&segments, &mut path);
                    visit(Step::At { path: &path, line, column });
                } else {
                    begin(&mut frames, &mut segments, &mut path, line, column, &mut visit);
                    end(&mut frames, &mut segments);
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                begin(&mut frames, &mut segments, &mut path, line, column, &mut visit);
                end(&mut frames, &mut segments);
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                begin(&mut frames, &mut segments, &mut path, line, column, &mut visit);
                frames.push(match event {
                    Event::MappingStart(..) => Frame::Map { expects_key: true },
                    _ => Frame::Sequence { next: 0 },
                });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                frames.pop();
                end(&mut frames, &mut segments);
            }
            Event::DocumentEnd => return,
            _ => {}
        }
    }
}

/// A value begins. An item of a sequence gets its index; a map used as a key is skipped as if it
/// were a value, nothing in the schema has one.
fn begin(
    frames: &mut [Frame],
    segments: &mut Vec<Segment>,
    path: &mut String,
    line: u32,
    column: u32,
    visit: &mut impl FnMut(Step<'_>),
) {
    match frames.last_mut() {
        Some(Frame::Sequence { next }) => {
            segments.push(Segment::Index(*next));
            *next += 1;
            write_path(segments, path);
            visit(Step::At { path, line, column });
        }
        Some(Frame::Map { expects_key: expects_key @ true }) => {
            *expects_key = false;
            segments.push(Segment::Key("?".to_owned()));
        }
        Some(Frame::Map { .. }) | None => {}
    }
}

/// A value has ended.
fn end(frames: &mut [Frame], segments: &mut Vec<Segment>) {
    match frames.last_mut() {
        Some(Frame::Map { expects_key }) => {
            *expects_key = true;
            segments.pop();
        }
        Some(Frame::Sequence { .. }) => {
            segments.pop();
        }
        None => {}
    }
}

fn write_path(segments: &[Segment], path: &mut String) {
    use std::fmt::Write as _;
    path.clear();
    for segment in segments {
        // Writing to a String cannot fail.
        let _ = match segment {
            Segment::Key(key) if path.is_empty() => write!(path, "{key}"),
            Segment::Key(key) => write!(path, ".{key}"),
            Segment::Index(index) => write!(path, "[{index}]"),
        };
    }
}

/// One map of a document.
#[derive(Default)]
struct Map {
    place: Vec<Segment>,
    /// Where its first key is.
    line: u32,
    keys: HashSet<String>,
}

/// Every key that the schema does not know, and every one that it misses. Serde stops at the first.
fn wrong_keys(text: &str) -> Vec<FieldError> {
    let schema = ravelin_contract::config::json_schema();
    let mut faults: Vec<FieldError> = Vec::new();
    let mut pending: Option<String> = None;
    let mut maps: HashMap<String, Map> = HashMap::new();
    let mut parent_path = String::new();
    walk(text, |step| match step {
        Step::Key { parent, key } => {
            let ask = key != MERGE && faults.len() < FAULTS_MAX;
            pending = ask.then(|| complaint(&schema, parent, key)).flatten();
            write_path(parent, &mut parent_path);
            // An unknown key costs its line; more than can be reported need not be kept.
            if pending.is_none() || maps.len() < FAULTS_MAX {
                let map = maps.entry(parent_path.clone()).or_default();
                if map.keys.is_empty() {
                    map.place = parent.to_vec();
                }
                if pending.is_none() {
                    map.keys.insert(key.to_owned());
                }
            }
        }
        Step::At { path, line, .. } => {
            if let Some(map) = maps.get_mut(&parent_path)
                && map.line == 0
            {
                map.line = line;
            }
            if let Some(reason) = pending.take() {
                faults.push(FieldError { path: path.to_owned(), line: Some(line), reason });
            }
        }
    });
    for (path, map) in maps {
        let missing = missing_keys(&schema, &map);
        faults.extend(missing.into_iter().take(FAULTS_MAX - faults.len().min(FAULTS_MAX)).map(
            |key| FieldError {
                path: if path.is_empty() { key.clone() } else { format!("{path}.{key}") },
                line: Some(map.line),
                reason: format!("missing field `{key}`"),
            },
        ));
    }
    faults
}

/// Keys that the schema demands of a map and that it does not have.
fn missing_keys(schema: &Value, map: &Map) -> Vec<String> {
    if map.keys.contains(MERGE) {
        return Vec::new();
    }
    let node = map.place.iter().try_fold(schema, |node, segment| resolve(schema, node, segment));
    let required = node
        .and_then(|node| object_form(schema, node))
        .and_then(|form| form.get("required"))
        .and_then(Value::as_array);
    let names = required.into_iter().flatten().filter_map(Value::as_str);
    names.filter(|name| !map.keys.contains(*name)).map(str::to_owned).collect()
}

/// Why `key` may not stand at `parent`; `None` if it may, or if the schema says nothing about it.
fn complaint(schema: &Value, parent: &[Segment], key: &str) -> Option<String> {
    let mut node = schema;
    for segment in parent {
        node = resolve(schema, node, segment)?;
    }
    let node = object_form(schema, node)?;
    let properties = node.get("properties")?.as_object()?;
    if properties.contains_key(key) || node.get("additionalProperties") != Some(&Value::Bool(false))
    {
        return None;
    }
    let near = properties.keys().find(|known| edit_distance(known, key) <= 2);
    Some(match near {
        Some(near) => format!("unknown key `{key}`; is `{near}` meant?"),
        None => {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            format!("unknown key `{key}`; known here: {}", known.join(", "))
        }
    })
}

fn resolve<'s>(schema: &'s Value, node: &'s Value, segment: &Segment) -> Option<&'s Value> {
    let forms = forms(schema, node);
    match segment {
        Segment::Key(key) => forms.iter().find_map(|form| form.get("properties")?.get(key)),
        Segment::Index(_) => forms.iter().find_map(|form| form.get("items")),
    }
}

fn object_form<'s>(schema: &'s Value, node: &'s Value) -> Option<&'s Value> {
    forms(schema, node).into_iter().find(|form| form.get("properties").is_some())
}

/// The node with `$ref` followed and alternatives spread.
fn forms<'s>(schema: &'s Value, node: &'s Value) -> Vec<&'s Value> {
    if let Some(target) = node.get("$ref").and_then(Value::as_str) {
        let found = target.strip_prefix('#').and_then(|pointer| schema.pointer(pointer));
        return found.map(|found| forms(schema, found)).unwrap_or_default();
    }
    match node.get("anyOf").or_else(|| node.get("oneOf")).and_then(Value::as_array) {
        Some(alternatives) => alternatives.iter().flat_map(|a| forms(schema, a)).collect(),
        None => vec![node],
    }
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row.first().copied().unwrap_or(0);
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(0);
            let left = row.get(j).copied().unwrap_or(0);
            let cost = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = cost;
            }
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(String, Option<u32>, String)> {
        read(text).unwrap_err().into_iter().map(|f| (f.path, f.line, f.reason)).collect()
    }

    #[test]
    fn every_unknown_key_is_named_with_path_and_line() {
        let text = "node: n\nnodes: x\nedge:\n  listeners:\n    - { id: a, realm: r, transport: \
                    udp, bind: \"1\", bnid: 2 }\n  zebra: {}\ntrunks:\n- id: t\n  realm: r\n  role: \
                    carrier\n  identity:\n    sign: true\n    signn: true\n";
        let faults = faults(text);
        let places: Vec<(&str, Option<u32>)> = faults.iter().map(|f| (f.0.as_str(), f.1)).collect();
        assert_eq!(
            places,
            [
                ("nodes", Some(2)),
                ("edge.listeners[0].bnid", Some(5)),
                ("edge.zebra", Some(6)),
                ("trunks[0].identity.signn", Some(13)),
            ]
        );
        assert_eq!(faults[0].2, "unknown key `nodes`; is `node` meant?");
        assert!(faults[2].2.starts_with("unknown key `zebra`; known here: "), "{}", faults[2].2);
    }

    #[test]
    fn wrong_types_and_missing_keys_have_path_and_line() {
        let text = "node: n\nedge:\n  cores: [0, one]\n";
        let got = faults(text);
        assert_eq!((got[0].0.as_str(), got[0].1), ("edge.cores[1]", Some(3)), "{got:?}");

        let text = "node: n\nedge: {}\ntrunks:\n  - id: t\n    role: carrier\n";
        let got = faults(text);
        assert_eq!(got, [("trunks[0].realm".into(), Some(4), "missing field `realm`".into())]);

        // All of them, whatever else is wrong.
        let text = "edge: {}\ntrunks:\n  - role: carrier\n  - id: b\n    x: 1\n    role: butler\n";
        let places: Vec<(String, Option<u32>)> =
            faults(text).into_iter().map(|fault| (fault.0, fault.1)).collect();
        for place in [
            ("node", 1),
            ("trunks[0].id", 3),
            ("trunks[0].realm", 3),
            ("trunks[1].realm", 4),
            ("trunks[1].x", 5),
        ] {
            let place = (place.0.to_owned(), Some(place.1));
            assert!(places.contains(&place), "{place:?} in {places:?}");
        }

        let text = "node: n\nedge: {}\ntrunks:\n  - id: t\n    realm: r\n    role: butler\n";
        let got = faults(text);
        assert_eq!((got[0].0.as_str(), got[0].1), ("trunks[0].role", Some(6)), "{got:?}");
        assert!(got[0].2.contains("customer"), "{got:?}");

        let got = faults("node: [\n");
        assert!(got[0].1.is_some(), "{got:?}");
        assert!(!faults("").is_empty());
        assert!(!faults("node: n\nedge: {}\n---\nnode: m\nedge: {}\n").is_empty());
        assert!(faults("node: n\nnode: m\nedge: {}\n")[0].2.contains("node"));
    }

    #[test]
    fn lines_of_paths_fall_back_to_what_is_above() {
        let text = "# c\nnode: n\ntrunks:\n- id: a\n- id: b\n  targets: [{uri: x},\n   {uri: y}]\n";
        let fault =
            |path: &str| FieldError { path: path.into(), line: None, reason: String::new() };
        let mut faults =
            [fault("trunks[1].targets[1].uri"), fault("trunks[0].realm"), fault("deployment.mode")];
        add_lines(text, &mut faults);
        assert_eq!(faults.map(|f| f.line), [Some(7), Some(4), Some(1)]);
    }

    #[test]
    fn merged_keys_are_not_missing() {
        let text = "node: n\nedge: {}\ntrunks:\n  - &a { id: a, realm: r, role: carrier }\n  - { <<: *a, \
                    id: b }\nroutes: 5\n";
        let got = faults(text);
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!((got[0].0.as_str(), got[0].1), ("routes", Some(6)));
    }

    #[test]
    fn faults_of_shape_are_bounded() {
        let mut text = String::from("node: n\nedge: {}\n");
        for i in 0..5 * FAULTS_MAX {
            text.push_str(&format!("k{i}: {{a: 1}}\n"));
        }
        assert_eq!(faults(&text).len(), FAULTS_MAX);
    }

    #[test]
    fn nesting_and_reference_bombs_are_refused() {
        let deep = format!("node: {}1{}\nedge: {{}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(read(&deep).is_err());
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let prev = i - 1;
            let refs = vec![format!("*a{prev}"); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(read(&bomb).is_err());
    }
}
