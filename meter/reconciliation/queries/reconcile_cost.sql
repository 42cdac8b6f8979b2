-- What the books say that the provider billed: in all, booked after $1, in flight at most, and
-- charged by policy without a correction so far.
SELECT ledger.*,
       (SELECT coalesce(sum(amount_picos), 0) FROM holds) AS in_flight_picos,
       (SELECT coalesce(sum(u.provider_cost_picos), 0) FROM usage_records u
        WHERE u.kind = 'provisional'
          AND NOT EXISTS (SELECT 1 FROM usage_records c
                          WHERE c.hold_id = u.hold_id AND c.placed_at = u.placed_at
                            AND c.revision > 0)) AS provisional_picos
FROM (SELECT coalesce(sum(amount_picos), 0) AS ledger_picos,
             coalesce(sum(amount_picos) FILTER (WHERE recorded_at > $1 AND amount_picos > 0), 0)
                 AS recent_picos
      FROM (SELECT e.amount_picos, p.recorded_at
            FROM entries e JOIN postings p ON p.id = e.posting_id AND p.booked_at = e.booked_at
            WHERE e.ledger_account = 'provider'
            UNION ALL
            SELECT amount_picos, '-infinity' FROM sealed_entries
            WHERE ledger_account = 'provider') billed) ledger
