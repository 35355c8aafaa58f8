-- Delivery of emergency notifications: when each row is due, what has happened to it, and who has
-- confirmed it. One call may be told about more than once: that it began, that nobody took it, that
-- it was given up.

ALTER TABLE emergency_notifications ADD COLUMN extension TEXT;
ALTER TABLE emergency_notifications ADD COLUMN site_id BIGINT;
DROP INDEX emergency_notifications_call;
CREATE UNIQUE INDEX emergency_notifications_call
    ON emergency_notifications (call_id, trigger_type);

ALTER TABLE emergency_deliveries ADD COLUMN priority BIGINT NOT NULL DEFAULT 1;
ALTER TABLE emergency_deliveries ADD COLUMN due_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE emergency_deliveries ADD COLUMN sent_ms BIGINT;
ALTER TABLE emergency_deliveries ADD COLUMN delivered_ms BIGINT;
ALTER TABLE emergency_deliveries ADD COLUMN acknowledged_by TEXT;
CREATE INDEX emergency_deliveries_due ON emergency_deliveries (state, method, due_ms);

-- What was queued before there was anything to deliver it is long past; nobody is to be alarmed
-- by it now.
UPDATE emergency_deliveries SET state = 'failed', reason = 'no adapter configured'
    WHERE state = 'queued';
