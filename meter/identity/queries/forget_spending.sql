-- Deletes the use of budgets in periods that ended long ago.
DELETE FROM spending s USING (
    SELECT subject, period, starts_on FROM spending
    WHERE period <> 'total' AND starts_on < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
) o
WHERE s.subject = o.subject AND s.period = o.period AND s.starts_on = o.starts_on
RETURNING s.subject
