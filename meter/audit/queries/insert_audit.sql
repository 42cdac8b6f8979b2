-- Adds a line to the audit log.
INSERT INTO audit_log (actor, action, subject, account_id, detail) VALUES ($1, $2, $3, $4, $5::jsonb)
