-- A posting of an administrator, with the balance of its account right after it.
SELECT booked_at, template, reason, amount_picos, balance_after_picos
FROM credit_postings WHERE posting_id = $1
