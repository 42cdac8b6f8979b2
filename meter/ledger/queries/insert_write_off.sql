-- Lists what the house bore of an account's debt.
INSERT INTO write_offs (posting_id, account_id, amount_picos) VALUES ($1, $2, $3)
