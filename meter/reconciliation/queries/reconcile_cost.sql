-- The provider's bill by our books: in all, booked after $1, the most that is in flight, and charged
-- by policy without a later report, with the cost that the holds of those cover. Requests with own keys are
-- not on our bill.
SELECT ledger.*, guessed.*,
       (SELECT coalesce(sum(amount_picos), 0) FROM holds WHERE markup_bps >= 0) AS in_flight_picos
FROM (SELECT coalesce(sum(amount_picos), 0) AS ledger_picos,
             coalesce(sum(amount_picos) FILTER (WHERE recorded_at > $1 AND amount_picos > 0), 0)
                 AS recent_picos
      FROM (SELECT e.amount_picos, p.recorded_at
            FROM entries e JOIN postings p ON p.id = e.posting_id AND p.booked_at = e.booked_at
            WHERE e.ledger_account = 'provider'
            UNION ALL
            SELECT amount_picos, '-infinity' FROM sealed_entries
            WHERE ledger_account = 'provider') billed) ledger,
     (SELECT coalesce(sum(known.cost_picos), 0) AS provisional_picos,
             coalesce(sum(div(h.amount_picos * 10000::numeric, 10000 + h.markup_bps)), 0)
                 AS provisional_most_picos
      FROM usage_records u
      JOIN ended_holds h ON h.id = u.hold_id AND h.placed_at = u.placed_at
      CROSS JOIN LATERAL (
          SELECT sum(r.provider_cost_picos) AS cost_picos, bool_and(r.source = 'policy') AS is_guess
          FROM usage_records r WHERE r.hold_id = u.hold_id AND r.placed_at = u.placed_at
      ) known
      WHERE u.kind = 'provisional' AND u.own_key_cost_picos IS NULL AND known.is_guess) guessed
