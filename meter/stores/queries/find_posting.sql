-- An administrator's posting with its amount, and the balance that its account had right after.
SELECT p.recorded_at, p.reason, p.template, c.balance_after_picos,
       (SELECT coalesce(sum(e.amount_picos), 0) FROM entries e
        WHERE e.posting_id = p.id AND e.booked_at = p.booked_at
          AND e.ledger_account = 'customer') AS amount_picos
FROM credit_postings c JOIN postings p ON p.id = c.posting_id AND p.booked_at = c.booked_at
WHERE c.posting_id = $1
