-- The sums by account of usage records, and of holds that ended otherwise than by an ordinary settlement,
-- of those placed from $1 until $2. `used_*` are of records that name no batch, which are in no chunk.
SELECT account_id, coalesce(sum(charge_picos) FILTER (WHERE batch IS NULL), 0) AS used_charge,
       coalesce(sum(provider_cost_picos) FILTER (WHERE batch IS NULL), 0) AS used_cost,
       count(kind) AS usage_records, count(*) FILTER (WHERE kind = 'provisional') AS provisional_records,
       count(*) FILTER (WHERE kind IS NULL) AS holds
FROM (SELECT account_id, charge_picos, provider_cost_picos, batch, kind
      FROM usage_rows WHERE placed_at >= $1 AND placed_at < $2
      UNION ALL
      SELECT account_id, 0, 0, NULL, NULL
      FROM ended_hold_rows WHERE placed_at >= $1 AND placed_at < $2) ended
GROUP BY account_id
