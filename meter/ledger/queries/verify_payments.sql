-- V8: every payment, refund and dispute has the posting that it was committed with, and no posting
-- about payments lacks its row. Postings of dropped months are still in credit_postings.
SELECT 'payments' AS invariant, coalesce(known.posting_id, posted.posting_id)::text AS id
FROM (SELECT posting_id, credited_picos AS amount_picos FROM payments
      WHERE posting_id IS NOT NULL
      UNION ALL
      SELECT posting_id, amount_picos FROM payment_reversals
      WHERE posting_id IS NOT NULL) known
FULL JOIN (SELECT posting_id, amount_picos FROM credit_postings
           WHERE template IN ('payment', 'payment_reversal')) posted
    ON posted.posting_id = known.posting_id
WHERE known.amount_picos IS DISTINCT FROM posted.amount_picos
UNION ALL
SELECT 'payments', p.id
FROM payments p
JOIN payment_reversals r ON r.payment_id = p.id
GROUP BY p.id HAVING sum(r.amount_picos) > 0
