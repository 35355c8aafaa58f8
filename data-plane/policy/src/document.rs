//! The raw document: read, edited and written by the control plane.

use ravelin_contract::{
    config::{Config, Site},
    link::FieldError,
};

/// A parsed raw document. Reading and writing are stable: writing what was read and reading it
/// again gives the same settings. Comments are not kept; the store keeps each version as received.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub config: Config,
}

/// Why a site could not be added or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteError {
    /// No site has this number.
    NotFound,
    /// The document would not compile; paths are relative to the site where they concern it.
    Invalid(Vec<FieldError>),
    /// The range or ELIN is taken by another site (409).
    Conflict(Vec<FieldError>),
}

/// Why an extension could not be pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinError {
    NoSuchSite,
    BadExtension(String),
}

impl Document {
    /// Reads YAML (JSON is YAML). Numbers are given to sites that have none.
    ///
    /// # Errors
    /// Faults of shape: not YAML, unknown keys, wrong types. Meaning is checked by
    /// [`crate::compile()`].
    pub fn from_yaml(text: &str) -> Result<Self, Vec<FieldError>> {
        let _ = text;
        Ok(Self { config: Config::default() })
    }

    /// Writes YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        String::new()
    }

    /// The site with this number.
    #[must_use]
    pub fn site(&self, site_id: u32) -> Option<&Site> {
        self.config.sites.iter().find(|site| site.site_id == Some(site_id))
    }

    /// Adds a site and returns its number.
    ///
    /// # Errors
    /// See [`SiteError`]; the document is unchanged then.
    pub fn add_site(&mut self, site: Site) -> Result<u32, SiteError> {
        let _ = site;
        Err(SiteError::NotFound)
    }

    /// Replaces the site with this number.
    ///
    /// # Errors
    /// See [`SiteError`]; the document is unchanged then.
    pub fn update_site(&mut self, site_id: u32, site: Site) -> Result<(), SiteError> {
        let _ = (site_id, site);
        Err(SiteError::NotFound)
    }

    /// Removes a site and the pins to it; returns what was removed.
    ///
    /// # Errors
    /// [`SiteError::NotFound`], or [`SiteError::Invalid`] if a trunk names it as default.
    pub fn delete_site(&mut self, site_id: u32) -> Result<Site, SiteError> {
        let _ = site_id;
        Err(SiteError::NotFound)
    }

    /// Pins an extension to a site, in place of an earlier pin.
    ///
    /// # Errors
    /// See [`PinError`]; the document is unchanged then.
    pub fn pin_extension(&mut self, extension: &str, site_id: u32) -> Result<(), PinError> {
        let _ = (extension, site_id);
        Err(PinError::NoSuchSite)
    }
}
