-- Writes an intention to buy before Stripe is asked.
INSERT INTO purchases (id, account_id, kind, is_live, amount_picos, saves_card)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING *
