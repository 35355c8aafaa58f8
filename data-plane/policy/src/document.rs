//! The raw document: read, edited and written by the control plane.

use ravelin_contract::{
    config::{Config, ExtensionSite, Site},
    link::FieldError,
};

use crate::{
    compile::{self, Fault, FaultKind},
    yaml,
};

/// A parsed raw document. Reading and writing are stable: writing what was read and reading it
/// again gives the same settings. Comments are not kept; the store keeps each version as received.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub config: Config,
}

/// Why a site could not be added, changed or removed. Paths start at the site where they concern
/// it (`elin`), at the document elsewhere (`trunks[2].default_site`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteError {
    /// No site has this number.
    NotFound,
    /// The document would not compile.
    Invalid(Vec<FieldError>),
    /// The name, number, range or ELIN is taken by another site (409).
    Conflict(Vec<FieldError>),
}

/// Why an extension could not be pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinError {
    /// No site has this number.
    NoSuchSite,
    /// Not an extension, or one that collides with an emergency number (EM-14).
    BadExtension(String),
}

impl Document {
    /// Reads YAML (JSON is YAML). Numbers are given to sites that have none.
    ///
    /// # Errors
    /// Faults of shape: not YAML, unknown keys, wrong types. Meaning is checked by
    /// [`crate::compile()`].
    pub fn from_yaml(text: &str) -> Result<Self, Vec<FieldError>> {
        let mut config = yaml::read(text)?;
        let numbers = compile::number_sites(&config.sites);
        for (site, number) in config.sites.iter_mut().zip(numbers) {
            site.site_id = Some(number);
        }
        Ok(Self { config })
    }

    /// Writes YAML.
    ///
    /// # Panics
    /// Never: every raw type can be written as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(&self.config).expect("the raw types are plain data")
    }

    /// The site with this number.
    #[must_use]
    pub fn site(&self, site_id: u32) -> Option<&Site> {
        self.config.sites.iter().find(|site| site.site_id == Some(site_id))
    }

    /// Adds a site and returns its number: the one it brings, else the one behind the highest in
    /// use, so that the number of a removed site does not come back while a later one exists.
    ///
    /// # Errors
    /// See [`SiteError`]; the document is unchanged then.
    pub fn add_site(&mut self, mut site: Site) -> Result<u32, SiteError> {
        let highest = self.config.sites.iter().filter_map(|site| site.site_id).max().unwrap_or(0);
        let site_id = site.site_id.unwrap_or_else(|| highest.saturating_add(1));
        site.site_id = Some(site_id);
        self.edit(self.config.sites.len(), |config| config.sites.push(site))?;
        Ok(site_id)
    }

    /// Replaces the site with this number, which it keeps.
    ///
    /// # Errors
    /// See [`SiteError`]; the document is unchanged then.
    pub fn update_site(&mut self, site_id: u32, mut site: Site) -> Result<(), SiteError> {
        let index = self.position(site_id)?;
        site.site_id = Some(site_id);
        self.edit(index, |config| {
            if let Some(place) = config.sites.get_mut(index) {
                rename(&mut config.extension_sites, &place.site_name, &site.site_name);
                for trunk in &mut config.trunks {
                    if trunk.default_site.as_ref() == Some(&place.site_name) {
                        trunk.default_site = Some(site.site_name.clone());
                    }
                }
                *place = site;
            }
        })
    }

    /// Removes a site and the extensions pinned to it; returns what was removed.
    ///
    /// # Errors
    /// [`SiteError::NotFound`], or [`SiteError::Invalid`] if a trunk names it as default.
    pub fn delete_site(&mut self, site_id: u32) -> Result<Site, SiteError> {
        let index = self.position(site_id)?;
        let removed = self.site(site_id).cloned().ok_or(SiteError::NotFound)?;
        self.edit(index, |config| {
            config.extension_sites.retain(|pin| {
                pin.site_id != Some(site_id) && pin.site.as_ref() != Some(&removed.site_name)
            });
            config.sites.remove(index);
        })?;
        Ok(removed)
    }

    /// Pins an extension to a site, in place of an earlier pin.
    ///
    /// # Errors
    /// See [`PinError`]; the document is unchanged then.
    pub fn pin_extension(&mut self, extension: &str, site_id: u32) -> Result<(), PinError> {
        if self.site(site_id).is_none() {
            return Err(PinError::NoSuchSite);
        }
        let pin = ExtensionSite {
            extension: extension.to_owned(),
            site_id: Some(site_id),
            site: None,
            pinned: true,
        };
        let mut edited = self.config.clone();
        edited.extension_sites.retain(|pin| pin.extension != extension);
        edited.extension_sites.push(pin);
        let path = format!("extension_sites[{}].extension", edited.extension_sites.len() - 1);
        if let Err(faults) = compile::compile_config(&edited, 0) {
            // The rest of the document was in force already: only the new entry is in question.
            if let Some(fault) = faults.into_iter().find(|fault| fault.path == path) {
                return Err(PinError::BadExtension(fault.reason));
            }
        }
        self.config = edited;
        Ok(())
    }

    /// Removes the pin of an extension; false if there was none.
    pub fn unpin_extension(&mut self, extension: &str) -> bool {
        let before = self.config.extension_sites.len();
        self.config.extension_sites.retain(|pin| pin.extension != extension);
        self.config.extension_sites.len() != before
    }

    fn position(&self, site_id: u32) -> Result<usize, SiteError> {
        let found = self.config.sites.iter().position(|site| site.site_id == Some(site_id));
        found.ok_or(SiteError::NotFound)
    }

    /// Changes a copy, and keeps it if it compiles. `index` is the site in question.
    fn edit(&mut self, index: usize, change: impl FnOnce(&mut Config)) -> Result<(), SiteError> {
        let mut edited = self.config.clone();
        change(&mut edited);
        // Of two sites that want the same thing the later one is at fault: for the check the
        // edited site is the last one, so that the fault and its text are about it.
        let mut checked = edited.clone();
        if index < checked.sites.len() {
            let site = checked.sites.remove(index);
            checked.sites.push(site);
        }
        let last = checked.sites.len().saturating_sub(1);
        match compile::compile_config(&checked, 0) {
            Ok(_) => {
                self.config = edited;
                Ok(())
            }
            Err(faults) => Err(site_error(last, faults)),
        }
    }
}

fn rename(pins: &mut [ExtensionSite], old: &str, new: &str) {
    for pin in pins {
        if pin.site.as_deref() == Some(old) {
            pin.site = Some(new.to_owned());
        }
    }
}

fn site_error(index: usize, faults: Vec<Fault>) -> SiteError {
    let own = format!("sites[{index}].");
    let is_conflict = faults.iter().all(|fault| fault.kind == FaultKind::Conflict);
    let errors = faults
        .into_iter()
        .map(|fault| {
            let path = fault.path.strip_prefix(&own).unwrap_or(&fault.path).to_owned();
            FieldError { path, line: None, reason: fault.reason }
        })
        .collect();
    if is_conflict { SiteError::Conflict(errors) } else { SiteError::Invalid(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    const LOOPBACK: &str = include_str!("../../../docs/examples/loopback.yml");

    fn chicago() -> Site {
        let text = r#"{"name": "Chicago Warehouse", "ip_range": "127.0.20.0/24", "realm": "access",
            "emergency_trunk": "emergency", "psap": "911", "elin": "+13125552000",
            "address": "5678 Warehouse Dr", "city": "Chicago", "state": "IL", "zip_code": "60601",
            "country": "USA"}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn writing_and_reading_is_stable() {
        let document = Document::from_yaml(LOOPBACK).unwrap();
        let text = document.to_yaml();
        let again = Document::from_yaml(&text).unwrap();
        assert_eq!(document, again);
        assert_eq!(text, again.to_yaml());
        let (old, new) = (compile(LOOPBACK, 1).unwrap(), compile(&text, 1).unwrap());
        assert_eq!(format!("{:?}", old.snapshot), format!("{:?}", new.snapshot));
    }

    #[test]
    fn odd_texts_survive_writing() {
        let mut document = Document::from_yaml(LOOPBACK).unwrap();
        let mut site = chicago();
        let long = "word ".repeat(60);
        for name in [
            long.trim(),
            "yes",
            "1e3",
            "a: b # c",
            "- x",
            "\"q\"",
            "'",
            "Zürich ☎",
            " x",
            "null",
            "~",
        ] {
            site.site_name = name.to_owned();
            site.building = Some(format!("{name}\u{e9}: [\"x\"]"));
            document.config.sites[0] = site.clone();
            let again = Document::from_yaml(&document.to_yaml()).unwrap();
            assert_eq!(again.config.sites[0].site_name, name);
            assert_eq!(again.config.sites[0].building, site.building);
        }
    }

    #[test]
    fn sites_are_added_changed_and_removed() {
        let mut document = Document::from_yaml(LOOPBACK).unwrap();
        assert_eq!(document.add_site(chicago()), Ok(2));
        let compiled = compile(&document.to_yaml(), 2).unwrap().snapshot;
        let realm = compiled.realm_by_id("access").unwrap();
        let found = compiled.site(realm, "127.0.20.0".parse().unwrap()).unwrap();
        assert_eq!(compiled.site_settings(found.site).unwrap().site_id, 2);
        assert_eq!(compiled.site_settings(found.site).unwrap().address.country, "US");

        document.pin_extension("1001", 2).unwrap();
        let mut moved = chicago();
        moved.ip_range = Some("127.0.21.0/24".to_owned());
        document.update_site(2, moved).unwrap();
        let compiled = compile(&document.to_yaml(), 3).unwrap().snapshot;
        assert_eq!(compiled.site(realm, "127.0.20.0".parse().unwrap()), None);
        assert!(compiled.extension_site(b"1001").is_some());

        assert_eq!(document.delete_site(2).unwrap().site_name, "Chicago Warehouse");
        assert_eq!(document.config.extension_sites, []);
        assert_eq!(document.delete_site(2), Err(SiteError::NotFound));
        assert_eq!(document.update_site(9, chicago()), Err(SiteError::NotFound));
        assert_eq!(document, Document::from_yaml(LOOPBACK).unwrap());
    }

    #[test]
    fn bad_sites_are_refused_with_the_column_at_fault() {
        let mut document = Document::from_yaml(LOOPBACK).unwrap();
        let before = document.clone();
        let mut refused = |change: fn(&mut Site)| {
            let mut site = chicago();
            change(&mut site);
            match document.add_site(site).unwrap_err() {
                SiteError::Invalid(e) => ("invalid", e[0].path.clone()),
                SiteError::Conflict(e) => ("conflict", e[0].path.clone()),
                SiteError::NotFound => ("not found", String::new()),
            }
        };
        let invalid = |path: &str| ("invalid", path.to_owned());
        let conflict = |path: &str| ("conflict", path.to_owned());
        assert_eq!(refused(|s| s.ip_range = Some("zz".into())), invalid("ip_range"));
        assert_eq!(refused(|s| s.ip_range = None), invalid("ip_range_start"));
        assert_eq!(refused(|s| s.elin = Some("911".into())), invalid("elin"));
        assert_eq!(refused(|s| s.elin = Some("+13135551000".into())), conflict("elin"));
        assert_eq!(refused(|s| s.site_name = "Detroit Factory".into()), conflict("site_name"));
        assert_eq!(refused(|s| s.site_id = Some(1)), conflict("site_id"));
        assert_eq!(refused(|s| s.emergency_trunk = Some("x".into())), invalid("emergency_trunk"));
        assert_eq!(refused(|s| s.psap_number = Some("933".into())), invalid("psap_number"));
        assert_eq!(refused(|s| s.realm = Some("nowhere".into())), invalid("realm"));
        assert_eq!(
            refused(|s| s.ip_range = Some("127.0.1.1-127.0.1.254".into())),
            conflict("ip_range")
        );
        assert_eq!(document, before);
    }

    #[test]
    fn a_conflict_is_told_about_the_edited_site() {
        let mut document = Document::from_yaml(LOOPBACK).unwrap();
        document.add_site(chicago()).unwrap();
        let mut detroit = document.site(1).unwrap().clone();
        detroit.elin = Some("+13125552000".to_owned());
        let Err(SiteError::Conflict(faults)) = document.update_site(1, detroit) else {
            panic!("the ELIN is that of Chicago");
        };
        assert_eq!(faults[0].path, "elin");
        assert!(faults[0].reason.contains("`Chicago Warehouse`"), "{faults:?}");
        assert_eq!(document.config.sites[0].site_name, "Detroit Factory", "order is kept");
    }

    #[test]
    fn extensions_are_pinned_once() {
        let mut document = Document::from_yaml(LOOPBACK).unwrap();
        document.add_site(chicago()).unwrap();
        document.pin_extension("1001", 1).unwrap();
        document.pin_extension("1001", 2).unwrap();
        assert_eq!(document.config.extension_sites.len(), 1);
        assert_eq!(document.pin_extension("1001", 3), Err(PinError::NoSuchSite));
        for bad in ["", "911", "91", "9911", "99", "a b", "x@y", "\r\n"] {
            assert!(
                matches!(document.pin_extension(bad, 1), Err(PinError::BadExtension(_))),
                "{bad}"
            );
        }
        assert!(document.unpin_extension("1001"));
        assert!(!document.unpin_extension("1001"));
    }
}
