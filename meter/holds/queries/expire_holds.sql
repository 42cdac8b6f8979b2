-- Makes open holds past their limit unknown, by the clock of the database, so that their requests
-- are looked up. Holds that are being settled now are skipped.
WITH overdue AS (
    SELECT id FROM holds WHERE state = 'open' AND expires_at <= clock_timestamp()
    ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
), marked AS (
    UPDATE holds h SET state = 'unknown', unknown_reason = 'no_entry'
    FROM overdue WHERE h.id = overdue.id
    RETURNING h.id, h.account_id
), queued AS (
    INSERT INTO lookups (hold_id, account_id, reason, due_at, deadline_at)
    SELECT id, account_id, 'no_entry', clock_timestamp() + $2::interval, clock_timestamp() + $2::interval
    FROM marked
    ON CONFLICT (hold_id) DO NOTHING
)
SELECT count(*) FROM marked
