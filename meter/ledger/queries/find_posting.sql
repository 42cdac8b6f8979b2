-- An administrator's posting, and the balance that its account had right after it.
SELECT booked_at, template, reason, amount_picos, balance_after_picos
FROM credit_postings WHERE posting_id = $1
