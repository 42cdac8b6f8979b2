-- Deletes the usual use of models and accounts that had no request for so many days.
DELETE FROM usual_uses WHERE updated_at < clock_timestamp() - make_interval(days => $1)
