-- Makes the doubts those of this listing, and returns the subjects that are not believed yet.
WITH found AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::text[]) AS f (subject, finding, explanation)
), gone AS (
    DELETE FROM catalogue_doubts
    WHERE provider = $1 AND subject NOT IN (SELECT subject FROM found)
), judged AS (
    INSERT INTO catalogue_doubts AS d (provider, subject, finding, explanation)
    SELECT $1, subject, finding, explanation FROM found
    ON CONFLICT (provider, subject) DO UPDATE SET
        finding = excluded.finding,
        explanation = excluded.explanation,
        id = CASE WHEN d.finding = excluded.finding THEN d.id ELSE excluded.id END,
        first_seen_at = CASE WHEN d.finding = excluded.finding
                             THEN d.first_seen_at ELSE clock_timestamp() END,
        accepted_at = CASE WHEN d.finding = excluded.finding THEN d.accepted_at END
    RETURNING d.subject,
              d.accepted_at IS NOT NULL OR d.first_seen_at <= clock_timestamp() - $5::interval
                  AS is_believed
)
SELECT subject FROM judged WHERE NOT is_believed
