-- V1: every posting sums to zero, and so does the ledger.
SELECT posting_id::text AS id FROM entries
GROUP BY posting_id HAVING sum(amount_picos) <> 0
