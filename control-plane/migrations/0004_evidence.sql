-- Evidence of the tests of SOC 2 controls (compliance-systems C3, C4). Append only: what a test
-- printed, with its digest, bound to the one test that it belongs to.

CREATE TABLE soc2_evidence (
    id         BIGINT PRIMARY KEY,
    test_id    BIGINT NOT NULL REFERENCES soc2_control_tests (id),
    control_id TEXT   NOT NULL,
    media_type TEXT   NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256     TEXT   NOT NULL,
    content    TEXT   NOT NULL
);
CREATE INDEX soc2_evidence_test ON soc2_evidence (test_id);
