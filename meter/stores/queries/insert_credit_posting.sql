-- Remembers an administrator's posting by its key, with the balance right after it.
INSERT INTO credit_postings (posting_id, booked_at, balance_after_picos) VALUES ($1, $2, $3)
