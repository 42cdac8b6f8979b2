-- Forgets requests whose hold, had there been one, would have been found long ago.
DELETE FROM undecided_requests WHERE seen_at < clock_timestamp() - $1::interval
