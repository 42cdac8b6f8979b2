-- The number of accounts, conflicts, batches and live holds.
SELECT (SELECT count(*) FROM accounts) AS accounts,
       (SELECT count(*) FROM settlement_conflicts) AS settlement_conflicts,
       coalesce((SELECT sum(position) FROM ledger_chains), 0)::bigint AS batches,
       count(*) FILTER (WHERE state = 'open') AS open_holds,
       count(*) FILTER (WHERE state = 'unknown') AS unknown_holds,
       count(*) FILTER (WHERE state = 'open' AND expires_at < clock_timestamp())
           AS stale_open_holds
FROM holds
