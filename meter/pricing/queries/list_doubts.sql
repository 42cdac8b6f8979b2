-- Doubtful parts of listings: those that wait for confirmation, and accepted ones that take effect next.
SELECT id, provider, subject, explanation, first_seen_at, accepted_at
FROM catalogue_doubts ORDER BY provider, subject
