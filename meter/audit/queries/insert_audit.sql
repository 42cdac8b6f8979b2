-- Adds a line to the audit log. $6 is the account that its author acts for, whose changes are counted.
WITH counted AS (
    INSERT INTO account_changes AS c (account_id, day, changes)
    SELECT $6, (clock_timestamp() AT TIME ZONE 'UTC')::date, 1 WHERE $6::text IS NOT NULL
    ON CONFLICT (account_id) DO UPDATE SET
        day = excluded.day,
        changes = CASE WHEN c.day = excluded.day THEN c.changes ELSE 0 END + 1
)
INSERT INTO audit_log (actor, action, subject, account_id, detail) VALUES ($1, $2, $3, $4, $5::jsonb)
