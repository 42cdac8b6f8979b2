-- What listings say that is not believed yet, or that is accepted and takes effect with the next.
SELECT id, provider, subject, explanation, first_seen_at, accepted_at
FROM catalogue_doubts ORDER BY provider, subject
