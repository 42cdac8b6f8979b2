-- The usual use of the model and endpoint of each live hold: of its own account where enough of its
-- requests are known, else of all accounts. Holds of which neither is known have no row.
SELECT h.id, u.requests, u.prompt_bound_picos, u.prompt_picos, u.completion_tokens
FROM holds h
CROSS JOIN LATERAL (
    SELECT * FROM usual_uses u
    WHERE u.model_id = h.model_id AND u.endpoint = h.endpoint
      AND u.account_id IN (h.account_id, '') AND u.requests >= $2
    ORDER BY u.account_id DESC LIMIT 1
) u
WHERE h.id = ANY ($1::uuid[])
