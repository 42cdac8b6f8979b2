-- Lists what the house bore, newest first, older than the row $1.
SELECT id, posting_id, account_id, amount_picos, taken_back_picos, written_off_at FROM write_offs
WHERE $1::bigint IS NULL OR id < $1 ORDER BY id DESC LIMIT $2
