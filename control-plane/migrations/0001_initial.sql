-- The whole store. Portable between SQLite and PostgreSQL: only BIGINT and TEXT, no automatic
-- numbers (there is one writer, it numbers rows itself), times are UTC milliseconds (`_ms`) or
-- RFC 3339 text (`_at`), flags are 0 or 1.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Config documents. Rows are never changed.
CREATE TABLE config_versions (
    version    BIGINT PRIMARY KEY,
    sha256     TEXT   NOT NULL,
    document   TEXT   NOT NULL,
    author     TEXT   NOT NULL,
    source     TEXT   NOT NULL,
    comment    TEXT   NOT NULL,
    base       BIGINT,
    created_ms BIGINT NOT NULL
);

-- Which version was put in force when. The last row is the active one.
CREATE TABLE config_activations (
    activation BIGINT PRIMARY KEY,
    version    BIGINT NOT NULL REFERENCES config_versions (version),
    actor      TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    at_ms      BIGINT NOT NULL
);

CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    name       TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    hash       TEXT   NOT NULL,
    created_by TEXT   NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT
);

-- The end of each node's chain of records. A node that comes with another spool starts a new epoch.
CREATE TABLE chain_heads (
    node   TEXT PRIMARY KEY,
    epoch  BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    hash   TEXT   NOT NULL,
    breaks BIGINT NOT NULL
);

-- Records as they came (`line`), with the columns that are searched. `flaw` says how a record
-- breaks its chain; null for a sound one.
CREATE TABLE audit_events (
    node     TEXT   NOT NULL,
    epoch    BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    at_ms    BIGINT NOT NULL,
    kind     TEXT   NOT NULL,
    severity TEXT   NOT NULL,
    call_id  TEXT,
    actor    TEXT,
    snapshot BIGINT NOT NULL,
    flaw     TEXT,
    line     TEXT   NOT NULL,
    PRIMARY KEY (node, epoch, seq)
);
CREATE INDEX audit_events_at ON audit_events (at_ms);
CREATE INDEX audit_events_kind ON audit_events (kind, at_ms);

CREATE TABLE cdrs (
    node           TEXT   NOT NULL,
    epoch          BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    start_ms       BIGINT NOT NULL,
    kind           TEXT   NOT NULL,
    call_id        TEXT   NOT NULL,
    attempt        BIGINT NOT NULL,
    inbound_trunk  TEXT,
    outbound_trunk TEXT,
    status         BIGINT NOT NULL,
    emergency      BIGINT NOT NULL,
    site           TEXT,
    flaw           TEXT,
    line           TEXT   NOT NULL,
    PRIMARY KEY (node, epoch, seq)
);
CREATE INDEX cdrs_start ON cdrs (start_ms);
CREATE INDEX cdrs_call ON cdrs (call_id);
CREATE INDEX cdrs_emergency ON cdrs (emergency, start_ms);

-- Projection of the sites of the active config document, under the column names of the source
-- documents. A site that leaves the document keeps its row, so that its number is never reused.
CREATE TABLE multi_site_e911_configs (
    id              BIGINT PRIMARY KEY,
    site_name       TEXT   NOT NULL,
    realm           TEXT   NOT NULL,
    ip_range_start  TEXT   NOT NULL,
    ip_range_end    TEXT   NOT NULL,
    emergency_trunk TEXT,
    emergency_trunks TEXT NOT NULL,
    psap_number     TEXT,
    elin            TEXT,
    street_address  TEXT,
    city            TEXT,
    state           TEXT,
    postal_code     TEXT,
    country         TEXT,
    building        TEXT,
    floor           TEXT,
    room            TEXT,
    not_a_place     BIGINT NOT NULL,
    created_at      TEXT   NOT NULL,
    updated_at      TEXT   NOT NULL,
    deleted_at      TEXT,
    version         BIGINT NOT NULL
);

CREATE TABLE emergency_contacts (
    id                   TEXT PRIMARY KEY,
    name                 TEXT   NOT NULL,
    extension            TEXT,
    phone                TEXT,
    email                TEXT,
    priority             BIGINT NOT NULL,
    notification_methods TEXT   NOT NULL,
    site_id              BIGINT,
    active               BIGINT NOT NULL,
    created_at           TEXT   NOT NULL,
    updated_at           TEXT   NOT NULL
);

CREATE TABLE emergency_notifications (
    id           TEXT PRIMARY KEY,
    at_ms        BIGINT NOT NULL,
    trigger_type TEXT   NOT NULL,
    call_id      TEXT,
    actor        TEXT   NOT NULL,
    details      TEXT   NOT NULL
);
CREATE INDEX emergency_notifications_at ON emergency_notifications (at_ms);
CREATE UNIQUE INDEX emergency_notifications_call ON emergency_notifications (call_id);

-- One row per notification, contact and method.
CREATE TABLE emergency_deliveries (
    notification_id TEXT   NOT NULL REFERENCES emergency_notifications (id),
    contact_id      TEXT   NOT NULL,
    contact_name    TEXT   NOT NULL,
    method          TEXT   NOT NULL,
    address         TEXT   NOT NULL,
    state           TEXT   NOT NULL,
    reason          TEXT,
    attempts        BIGINT NOT NULL,
    updated_ms      BIGINT NOT NULL,
    PRIMARY KEY (notification_id, contact_id, method)
);
