-- Stores a posting of an administrator by its key, with the balance right after it.
INSERT INTO credit_postings (posting_id, booked_at, template, reason, amount_picos,
                             balance_after_picos)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING booked_at, template, reason, amount_picos, balance_after_picos
