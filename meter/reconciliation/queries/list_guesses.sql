-- Requests that a policy charged and whose cost nobody has told since, the youngest first: with what
-- they come to now, and the cost that their hold covers. OpenRouter's total says nothing about other
-- providers, nor about own keys.
SELECT u.hold_id, known.revision, known.cost_picos,
       div(h.amount_picos * 10000::numeric, 10000 + h.markup_bps) AS most_picos
FROM usage_records u
JOIN prices p ON p.id = u.price_id AND p.provider = 'openrouter'
JOIN ended_holds h ON h.id = u.hold_id AND h.placed_at = u.placed_at
CROSS JOIN LATERAL (
    SELECT max(r.revision) AS revision, sum(r.provider_cost_picos) AS cost_picos,
           bool_and(r.source = 'policy') AS is_guess
    FROM usage_records r WHERE r.hold_id = u.hold_id AND r.placed_at = u.placed_at
) known
WHERE u.kind = 'provisional' AND u.own_key_cost_picos IS NULL AND known.is_guess
ORDER BY u.placed_at DESC, u.hold_id DESC
LIMIT $1
