//! The table of the source documents, `multi_site_e911_configs`: a projection of the sites of the
//! config in force, written in the transaction that puts it in force.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{AnyConnection, Row, any::AnyRow};

use crate::{
    clock,
    e911::{self, Site, SiteTrunk},
    error::StoreError,
    store::{sql, unsigned},
};

/// One site as the API shows it: the columns of the source documents, and what Ravelin made of
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SiteView {
    pub id: u32,
    pub site_name: String,
    /// Null: every access realm.
    pub realm: Option<String>,
    pub ip_range_start: String,
    pub ip_range_end: String,
    /// The range as prefixes, as the lookup table holds it when no smaller site lies inside.
    pub prefixes: Vec<String>,
    /// The trunk that is tried first.
    pub emergency_trunk: Option<String>,
    pub emergency_trunks: Vec<SiteTrunk>,
    pub psap_number: Option<String>,
    pub elin: Option<String>,
    pub street_address: Option<String>,
    pub city: Option<String>,
    pub state: Option<String>,
    pub postal_code: Option<String>,
    pub country: Option<String>,
    pub building: Option<String>,
    pub floor: Option<String>,
    pub room: Option<String>,
    pub not_a_place: bool,
    pub created_at: String,
    pub updated_at: String,
    /// Config version that changed the site last.
    pub version: u64,
}

const COLUMNS: &str = "SELECT id, site_name, realm, ip_range_start, ip_range_end, emergency_trunk,
    emergency_trunks, psap_number, elin, street_address, city, state, postal_code, country,
    building, floor, room, not_a_place, created_at, updated_at, version
    FROM multi_site_e911_configs";

/// Brings the table to `sites`. Only rows that differ are written; sites that are gone keep a row
/// that says when they went.
///
/// # Errors
/// What the database says.
pub async fn project(
    connection: &mut AnyConnection,
    sites: &[Site],
    version: u64,
) -> Result<(), StoreError> {
    let mut before: HashMap<u32, Site> = HashMap::new();
    let sql_text = statement(COLUMNS, " WHERE deleted_at IS NULL");
    for row in sqlx::query(sqlx::AssertSqlSafe(sql_text)).fetch_all(&mut *connection).await? {
        let site = plain(&row)?;
        before.insert(site.id, site);
    }
    let now = clock::rfc3339(clock::unix_ms());
    for site in sites {
        match before.remove(&site.id) {
            Some(old) if old == *site => {}
            _ => upsert(connection, site, version, &now).await?,
        }
    }
    for id in before.into_keys() {
        sqlx::query(
            "UPDATE multi_site_e911_configs SET deleted_at = $1, updated_at = $1, version = $2
             WHERE id = $3",
        )
        .bind(now.clone())
        .bind(sql(version))
        .bind(i64::from(id))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn upsert(
    connection: &mut AnyConnection,
    site: &Site,
    version: u64,
    now: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO multi_site_e911_configs (id, site_name, realm, ip_range_start, ip_range_end,
             emergency_trunk, emergency_trunks, psap_number, elin, street_address, city, state,
             postal_code, country, building, floor, room, not_a_place, created_at, updated_at,
             version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
             $19, $19, $20)
         ON CONFLICT (id) DO UPDATE SET site_name = excluded.site_name, realm = excluded.realm,
             ip_range_start = excluded.ip_range_start, ip_range_end = excluded.ip_range_end,
             emergency_trunk = excluded.emergency_trunk,
             emergency_trunks = excluded.emergency_trunks, psap_number = excluded.psap_number,
             elin = excluded.elin, street_address = excluded.street_address, city = excluded.city,
             state = excluded.state, postal_code = excluded.postal_code,
             country = excluded.country, building = excluded.building, floor = excluded.floor,
             room = excluded.room, not_a_place = excluded.not_a_place,
             updated_at = excluded.updated_at, deleted_at = NULL, version = excluded.version",
    )
    .bind(i64::from(site.id))
    .bind(site.site_name.clone())
    .bind(site.realm.clone())
    .bind(site.ip_range_start.clone())
    .bind(site.ip_range_end.clone())
    .bind(site.emergency_trunk.clone())
    .bind(serde_json::to_string(&site.emergency_trunks)?)
    .bind(site.psap_number.clone())
    .bind(site.elin.clone())
    .bind(site.street_address.clone())
    .bind(site.city.clone())
    .bind(site.state.clone())
    .bind(site.postal_code.clone())
    .bind(site.country.clone())
    .bind(site.building.clone())
    .bind(site.floor.clone())
    .bind(site.room.clone())
    .bind(i64::from(site.not_a_place))
    .bind(now.to_owned())
    .bind(sql(version))
    .execute(connection)
    .await?;
    Ok(())
}

/// One site in force; `None` if there is none by that number.
///
/// # Errors
/// What the database says.
pub async fn load(connection: &mut AnyConnection, id: u32) -> Result<Option<SiteView>, StoreError> {
    let text = statement(COLUMNS, " WHERE deleted_at IS NULL AND id = $1");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(i64::from(id))
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(view)
        .transpose()
}

/// One site by its number, also one that is no longer in force: reports look back.
///
/// # Errors
/// What the database says.
pub async fn load_any(
    connection: &mut AnyConnection,
    id: u32,
) -> Result<Option<SiteView>, StoreError> {
    let text = statement(COLUMNS, " WHERE id = $1");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(i64::from(id))
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(view)
        .transpose()
}

/// Sites in force behind number `after`, by number.
///
/// # Errors
/// What the database says.
pub async fn list(
    connection: &mut AnyConnection,
    after: u32,
    limit: u32,
) -> Result<Vec<SiteView>, StoreError> {
    let text = statement(COLUMNS, " WHERE deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(i64::from(after))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?
        .iter()
        .map(view)
        .collect()
}

/// The highest number that a site ever had; 0 if there never was one.
///
/// # Errors
/// What the database says.
pub async fn highest_id(connection: &mut AnyConnection) -> Result<u32, StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) FROM multi_site_e911_configs")
        .fetch_one(connection)
        .await?;
    number(row.try_get(0)?)
}

fn statement(columns: &'static str, rest: &'static str) -> String {
    format!("{columns}{rest}")
}

fn number(id: i64) -> Result<u32, StoreError> {
    u32::try_from(id).map_err(|_| StoreError::Corrupt(format!("site number {id}")))
}

fn plain(row: &AnyRow) -> Result<Site, StoreError> {
    Ok(Site {
        id: number(row.try_get(0)?)?,
        site_name: row.try_get(1)?,
        realm: row.try_get(2)?,
        ip_range_start: row.try_get(3)?,
        ip_range_end: row.try_get(4)?,
        emergency_trunk: row.try_get(5)?,
        emergency_trunks: serde_json::from_str(&row.try_get::<String, _>(6)?)?,
        psap_number: row.try_get(7)?,
        elin: row.try_get(8)?,
        street_address: row.try_get(9)?,
        city: row.try_get(10)?,
        state: row.try_get(11)?,
        postal_code: row.try_get(12)?,
        country: row.try_get(13)?,
        building: row.try_get(14)?,
        floor: row.try_get(15)?,
        room: row.try_get(16)?,
        not_a_place: row.try_get::<i64, _>(17)? != 0,
    })
}

fn view(row: &AnyRow) -> Result<SiteView, StoreError> {
    let site = plain(row)?;
    Ok(SiteView {
        id: site.id,
        site_name: site.site_name,
        realm: Some(site.realm).filter(|realm| !realm.is_empty()),
        prefixes: e911::prefixes(&site.ip_range_start, &site.ip_range_end),
        ip_range_start: site.ip_range_start,
        ip_range_end: site.ip_range_end,
        emergency_trunk: site.emergency_trunk,
        emergency_trunks: site.emergency_trunks,
        psap_number: site.psap_number,
        elin: site.elin,
        street_address: site.street_address,
        city: site.city,
        state: site.state,
        postal_code: site.postal_code,
        country: site.country,
        building: site.building,
        floor: site.floor,
        room: site.room,
        not_a_place: site.not_a_place,
        created_at: row.try_get(18)?,
        updated_at: row.try_get(19)?,
        version: unsigned(row.try_get(20)?)?,
    })
}
