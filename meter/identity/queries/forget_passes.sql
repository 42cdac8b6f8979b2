-- Deletes passes that ended before an instant, with the use of their budgets. Locked rows are left
-- for the next run.
WITH over AS (
    SELECT id FROM passes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2
    FOR UPDATE SKIP LOCKED
), used AS (
    SELECT s.subject, s.period, s.starts_on FROM spending s
    WHERE s.subject IN (SELECT id FROM over) FOR UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM spending s USING used u
    WHERE s.subject = u.subject AND s.period = u.period AND s.starts_on = u.starts_on
)
DELETE FROM passes WHERE id IN (SELECT id FROM over) RETURNING id
