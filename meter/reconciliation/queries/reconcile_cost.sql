-- OpenRouter's bill by our books: in all, booked after $1, the most that is in flight, and charged
-- by policy without a later report, with the cost that the holds of those cover. From the sums of the
-- youngest checkpoint and the batches after $2, its last. Other providers have bills of their own, and
-- requests with own keys are on no bill of ours.
SELECT ledger.*, guessed.*,
       (SELECT coalesce(sum(h.amount_picos), 0) FROM holds h JOIN prices p ON p.id = h.price_id
        WHERE h.markup_bps >= 0 AND p.provider = 'openrouter') AS in_flight_picos
FROM (SELECT (SELECT coalesce(sum(cost), 0) FROM checkpoint_sums)
             + (SELECT coalesce(sum(cost), 0) FROM sums_of_batches($2, 9223372036854775807))
             - (SELECT coalesce(sum(cost_picos), 0) FROM provider_costs)
                 AS ledger_picos,
             coalesce((SELECT sum(e.amount_picos)
                       FROM posting_rows p
                       JOIN entry_rows e ON e.posting_id = p.id AND e.booked_at = p.booked_at
                       WHERE p.batch > recent.after AND p.recorded_at > $1
                         AND e.ledger_account = 'provider' AND e.amount_picos > 0), 0)
             - coalesce((SELECT sum(u.provider_cost_picos)
                         FROM usage_rows u
                         JOIN prices p ON p.id = u.price_id AND p.provider <> 'openrouter'
                         WHERE u.batch > recent.after AND u.recorded_at > $1
                           AND u.provider_cost_picos > 0), 0)
             + coalesce((SELECT sum(s.provider_picos) FROM settlements s
                         WHERE s.batch > recent.after AND s.recorded_at > $1), 0) AS recent_picos
      -- Rows are found by their batch, and numbers of batches rise nearly as time does.
      FROM (SELECT coalesce((SELECT number FROM ledger_batches
                             WHERE sealed_at <= $1::timestamptz - interval '1 hour'
                             ORDER BY number DESC LIMIT 1), 0) AS after) recent) ledger,
     (SELECT coalesce(sum(known.cost_picos), 0) AS provisional_picos,
             coalesce(sum(div(h.amount_picos * 10000::numeric, 10000 + h.markup_bps)), 0)
                 AS provisional_most_picos
      FROM usage_records u
      JOIN prices p ON p.id = u.price_id AND p.provider = 'openrouter'
      JOIN ended_holds h ON h.id = u.hold_id AND h.placed_at = u.placed_at
      CROSS JOIN LATERAL (
          SELECT sum(r.provider_cost_picos) AS cost_picos, bool_and(r.source = 'policy') AS is_guess
          FROM usage_records r WHERE r.hold_id = u.hold_id AND r.placed_at = u.placed_at
      ) known
      WHERE u.kind = 'provisional' AND u.own_key_cost_picos IS NULL AND known.is_guess) guessed
