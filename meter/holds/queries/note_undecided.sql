-- Stores requests that ended before a decision reached Envoy.
INSERT INTO undecided_requests (request_id) SELECT DISTINCT unnest($1::uuid[])
ON CONFLICT (request_id) DO NOTHING
