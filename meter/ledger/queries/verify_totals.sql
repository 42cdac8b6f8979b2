-- The number of rows and the sums of the books, dropped months included; for V5, the number of open
-- holds past their limit.
SELECT ledger.*, held.*,
       (SELECT count(*) FROM ended_holds) + held.open_holds + held.unknown_holds AS holds,
       (SELECT count(*) FROM postings) AS postings,
       (SELECT count(*) FROM accounts) AS accounts,
       (SELECT count(*) FROM usage_records) AS usage_records,
       (SELECT count(*) FROM settlement_conflicts) AS settlement_conflicts,
       (SELECT count(*) FROM usage_records WHERE kind = 'provisional') AS provisional_records,
       coalesce((SELECT sum(position) FROM ledger_chains), 0) AS batches
FROM (SELECT coalesce(sum(entries), 0) AS entries,
             coalesce(sum(amount_picos) FILTER (WHERE ledger_account = 'provider'), 0)
                 AS provider_cost_picos,
             coalesce(sum(amount_picos) FILTER (
                 WHERE ledger_account IN ('provider', 'revenue')), 0) AS charge_picos,
             coalesce(-sum(amount_picos) FILTER (
                 WHERE template = 'excess' AND ledger_account = 'customer'), 0) AS excess_picos
      FROM (SELECT p.template, e.ledger_account, e.amount_picos, 1 AS entries
            FROM entries e JOIN postings p ON p.id = e.posting_id AND p.booked_at = e.booked_at
            UNION ALL
            SELECT template, ledger_account, amount_picos, entries FROM sealed_entries) moved) ledger,
     (SELECT count(*) FILTER (WHERE state = 'open') AS open_holds,
             count(*) FILTER (WHERE state = 'unknown') AS unknown_holds,
             count(*) FILTER (WHERE state = 'open' AND expires_at < clock_timestamp())
                 AS stale_open_holds
      FROM holds) held
