-- Places a batch of holds in one commit: see place_holds() in the migrations.
SELECT hold_id, verdict, amount, granted_tokens, available
FROM place_holds($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                 $19, $20)
