-- SOC 2 controls, their tests and their history (compliance-systems 5). The sixteen default
-- controls are put in once, here, as `pending`: reading never writes, and nothing is asserted that
-- was not tested (defects C1, C2). Ids and texts are those of the source documents;
-- `tsc_reference` gives the criterion of TSC 2017 (rev. 2022) that the text belongs to (C5).

CREATE TABLE soc2_controls (
    id                    BIGINT PRIMARY KEY,
    control_id            TEXT   NOT NULL UNIQUE,
    control_category      TEXT   NOT NULL,
    description           TEXT   NOT NULL,
    implementation_status TEXT   NOT NULL,
    last_tested           TEXT,
    test_results          TEXT,
    tsc_reference         TEXT,
    revision              BIGINT NOT NULL
);

-- Append only.
CREATE TABLE soc2_control_tests (
    id         BIGINT PRIMARY KEY,
    control_id TEXT   NOT NULL REFERENCES soc2_controls (control_id),
    results    TEXT   NOT NULL,
    outcome    TEXT   NOT NULL,
    tested_ms  BIGINT NOT NULL,
    tested_at  TEXT   NOT NULL,
    tester     TEXT   NOT NULL
);

-- Append only: who changed what, when, from what to what.
CREATE TABLE soc2_control_changes (
    id           BIGINT PRIMARY KEY,
    control_id   TEXT   NOT NULL REFERENCES soc2_controls (control_id),
    changed_at   TEXT   NOT NULL,
    actor        TEXT   NOT NULL,
    before_state TEXT,
    after_state  TEXT   NOT NULL
);

-- Audits that took place. Empty until somebody records one (C7).
CREATE TABLE soc2_audits (
    id          BIGINT PRIMARY KEY,
    audit_date  TEXT   NOT NULL,
    auditor     TEXT   NOT NULL,
    note        TEXT   NOT NULL,
    recorded_by TEXT   NOT NULL,
    recorded_at TEXT   NOT NULL
);

INSERT INTO soc2_controls
    (id, control_id, control_category, description, implementation_status, tsc_reference, revision)
VALUES
    (1,  'CC1.1', 'Security', 'COSO Principle 1: Integrity and ethical values', 'pending', 'CC1.1 (COSO 1)', 1),
    (2,  'CC1.2', 'Security', 'COSO Principle 2: Board independence and oversight', 'pending', 'CC1.2 (COSO 2)', 1),
    (3,  'CC2.1', 'Security', 'COSO Principle 4: Commitment to competence', 'pending', 'CC1.4 (COSO 4); CC2.1 of the TSC is COSO 13', 1),
    (4,  'CC3.1', 'Security', 'COSO Principle 6: Suitable objectives', 'pending', 'CC3.1 (COSO 6)', 1),
    (5,  'CC5.1', 'Security', 'COSO Principle 10: Control activities', 'pending', 'CC5.1 (COSO 10)', 1),
    (6,  'CC6.1', 'Security', 'Logical and physical access controls', 'pending', 'CC6.1', 1),
    (7,  'CC6.2', 'Security', 'System access authorization and authentication', 'pending', 'CC6.2', 1),
    (8,  'CC6.6', 'Security', 'Encryption of data in transit and at rest', 'pending', 'CC6.1 and CC6.7; CC6.6 of the TSC is threats from outside the boundary', 1),
    (9,  'CC7.1', 'Security', 'Detection of security incidents', 'pending', 'CC7.2; CC7.1 of the TSC is detection of vulnerabilities and changes', 1),
    (10, 'CC7.2', 'Security', 'Response to security incidents', 'pending', 'CC7.4; CC7.2 of the TSC is monitoring for anomalies', 1),
    (11, 'A1.1', 'Availability', 'System availability and performance monitoring', 'pending', 'A1.1', 1),
    (12, 'A1.2', 'Availability', 'Backup and disaster recovery procedures', 'pending', 'A1.2', 1),
    (13, 'PI1.1', 'Processing Integrity', 'Data processing quality and integrity controls', 'pending', 'PI1.1', 1),
    (14, 'PI1.2', 'Processing Integrity', 'System processing accuracy monitoring', 'pending', 'PI1.2', 1),
    (15, 'C1.1', 'Confidentiality', 'Confidential information identification and classification', 'pending', 'C1.1', 1),
    (16, 'C1.2', 'Confidentiality', 'Confidential information disposal procedures', 'pending', 'C1.2', 1);
