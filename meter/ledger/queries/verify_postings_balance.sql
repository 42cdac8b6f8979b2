-- V1: every posting sums to zero, and so does the ledger; sealed sums stand for dropped months.
SELECT posting_id::text AS id FROM entries
GROUP BY posting_id HAVING sum(amount_picos) <> 0
UNION ALL
SELECT account_id || ' ' || month::text FROM sealed_entries
GROUP BY month, account_id, template HAVING sum(amount_picos) <> 0
