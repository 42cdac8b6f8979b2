-- Writes an intention to buy before Stripe is asked. It keeps how long bought credit lasts now.
INSERT INTO purchases (id, account_id, kind, is_live, amount_picos, saves_card, credit_days)
SELECT $1, $2, $3, $4, $5, $6, t.credit_days FROM selling_terms t
RETURNING *
