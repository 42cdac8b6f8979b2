-- Arrivals that contradict the books, newest first, before an id, with the recorded usage.
SELECT c.id, c.hold_id, c.kind, c.recorded_at, known.account_id, known.cost_picos, c.arrived
FROM settlement_conflicts c
LEFT JOIN LATERAL (
    SELECT min(u.account_id) AS account_id, 
           sum(coalesce(u.own_key_cost_picos, u.provider_cost_picos))::bigint AS cost_picos
    FROM usage_records u WHERE u.hold_id = c.hold_id
) known ON true
WHERE c.id < coalesce($1::bigint, 9223372036854775807)
ORDER BY c.id DESC
LIMIT $2
