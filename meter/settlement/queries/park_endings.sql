-- Keeps endings whose rows another transaction keeps locked.
INSERT INTO parked_endings (hold_id, account_id, observed)
SELECT k.id, coalesce(live.account_id, ended.account_id, ''), k.observed
FROM unnest($1::uuid[], $2::jsonb[]) WITH ORDINALITY AS k (id, observed, position)
LEFT JOIN holds live ON live.id = k.id
LEFT JOIN LATERAL (SELECT e.account_id FROM ended_holds e WHERE e.id = k.id LIMIT 1) ended ON true
ORDER BY k.position
