-- What there is in the books, and what it adds up to; V5 counts open holds past their limit.
SELECT ledger.*, held.*,
       (SELECT count(*) FROM postings) AS postings,
       (SELECT count(*) FROM accounts) AS accounts,
       (SELECT count(*) FROM usage_records) AS usage_records,
       (SELECT count(*) FROM settlement_conflicts) AS settlement_conflicts,
       (SELECT coalesce(-sum(e.amount_picos), 0)
        FROM postings p JOIN entries e ON e.posting_id = p.id
        WHERE p.template = 'excess' AND e.ledger_account = 'customer') AS excess_picos
FROM (SELECT count(*) AS entries,
             coalesce(sum(amount_picos) FILTER (WHERE ledger_account = 'provider'), 0)
                 AS provider_cost_picos,
             coalesce(sum(amount_picos) FILTER (
                 WHERE ledger_account IN ('provider', 'revenue')), 0) AS charge_picos
      FROM entries) ledger,
     (SELECT count(*) AS holds,
             count(*) FILTER (WHERE state = 'open') AS open_holds,
             count(*) FILTER (WHERE state = 'unknown') AS unknown_holds,
             count(*) FILTER (WHERE state = 'open' AND expires_at < clock_timestamp())
                 AS stale_open_holds
      FROM holds) held
