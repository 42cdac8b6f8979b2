-- Past reconciliations, newest first, before an id.
SELECT id, is_ok, report, recorded_at FROM reconciliations
WHERE id < coalesce($1::bigint, 9223372036854775807)
ORDER BY id DESC
LIMIT $2
