-- Locks what the house bore for accounts and did not get back, oldest first.
SELECT id, account_id, amount_picos - taken_back_picos AS outstanding_picos, written_off_at
FROM write_offs WHERE account_id = ANY($1::text[]) AND taken_back_picos < amount_picos
ORDER BY id FOR NO KEY UPDATE
