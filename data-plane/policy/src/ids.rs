//! Index newtypes: positions in the vectors of one snapshot. They mean nothing in another one; the
//! string ids do.

/// Position in `Snapshot::realms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealmId(pub u16);

/// Position in `Snapshot::trunks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrunkId(pub u16);

/// Position in `Snapshot::routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

/// Position in `Snapshot::sites`. The number that users see is `Site::site_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub u32);
