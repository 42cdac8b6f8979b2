-- Forgets what models and accounts used that nobody used for so many days.
DELETE FROM usual_uses WHERE updated_at < clock_timestamp() - make_interval(days => $1)
