-- Live holds of requests that ended before a decision reached Envoy, and that no entry told of.
SELECT h.id FROM holds h JOIN undecided_requests u ON u.request_id = h.request_id
WHERE h.state = 'open' OR h.unknown_reason = 'no_entry'
LIMIT $1
