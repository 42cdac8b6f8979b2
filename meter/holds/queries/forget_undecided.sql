-- Deletes undecided requests that are so old that their hold would have been found.
DELETE FROM undecided_requests WHERE seen_at < clock_timestamp() - $1::interval
