-- Places a batch of holds ($2) of some accounts ($1) in one commit: see place_holds() in the
-- migrations.
SELECT hold_id, verdict, amount, granted_tokens, available FROM place_holds($1, $2, $3, $4, $5)
