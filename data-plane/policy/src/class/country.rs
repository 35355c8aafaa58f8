//! Numbers by country (EM-8): data, not code.

use super::Service;

/// Short codes of one country.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Country {
    /// ISO 3166 two-letter code.
    pub(crate) code: &'static str,
    pub(crate) emergency: &'static [(&'static str, Service)],
    /// Reads back the registered address.
    pub(crate) address_test: Option<&'static str>,
    /// Suicide and crisis line.
    pub(crate) crisis: Option<&'static str>,
}

/// Every country that ships. The first one is the default.
pub(crate) static ALL: &[Country] = &[
    Country {
        code: "US",
        emergency: &[("911", Service::Sos)],
        address_test: Some("933"),
        crisis: Some("988"),
    },
    Country {
        code: "CA",
        emergency: &[("911", Service::Sos)],
        address_test: Some("933"),
        crisis: Some("988"),
    },
    Country {
        code: "GB",
        emergency: &[("999", Service::Sos), ("112", Service::Sos)],
        address_test: None,
        crisis: None,
    },
    Country {
        code: "DE",
        emergency: &[("112", Service::Sos), ("110", Service::Police)],
        address_test: None,
        crisis: None,
    },
    Country {
        code: "AU",
        emergency: &[("000", Service::Sos), ("112", Service::Sos)],
        address_test: None,
        crisis: None,
    },
    Country { code: "NZ", emergency: &[("111", Service::Sos)], address_test: None, crisis: None },
    Country {
        code: "JP",
        emergency: &[("110", Service::Police), ("119", Service::Fire), ("118", Service::Marine)],
        address_test: None,
        crisis: None,
    },
];

impl Country {
    /// The profile of a country, by its code in any case.
    pub(crate) fn by_code(code: &str) -> Option<&'static Self> {
        ALL.iter().find(|country| country.code.eq_ignore_ascii_case(code))
    }

    /// The profile where the document names none.
    pub(crate) fn default_profile() -> &'static Self {
        &ALL[0]
    }

    /// Codes of every country that ships, for messages.
    pub(crate) fn codes() -> String {
        ALL.iter().map(|country| country.code).collect::<Vec<_>>().join(", ")
    }
}
