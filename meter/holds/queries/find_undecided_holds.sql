-- Live holds of requests that ended before a decision reached Envoy, and that have no entry in a
-- log.
SELECT h.id FROM holds h JOIN undecided_requests u ON u.request_id = h.request_id
WHERE h.state = 'open' OR h.unknown_reason = 'no_entry'
LIMIT $1
