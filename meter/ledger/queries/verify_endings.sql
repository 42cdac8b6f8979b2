-- V3: a hold is live or ended, never both; a hold is settled if and only if it has a settlement of
-- the same account; a late charge belongs to a hold that ended without a charge.
SELECT id::text FROM holds JOIN ended_holds USING (id)
UNION ALL
SELECT coalesce(h.id, u.hold_id)::text
FROM (SELECT id, placed_at, account_id FROM ended_holds WHERE state = 'settled') h
FULL JOIN (SELECT hold_id, placed_at, account_id FROM usage_records
           WHERE kind IN ('settlement', 'provisional')) u
    ON u.hold_id = h.id AND u.placed_at = h.placed_at AND u.account_id = h.account_id
WHERE h.id IS NULL OR u.hold_id IS NULL
UNION ALL
SELECT u.hold_id::text
FROM usage_records u
LEFT JOIN ended_holds h
    ON h.id = u.hold_id AND h.placed_at = u.placed_at AND h.account_id = u.account_id
       AND h.state <> 'settled'
WHERE u.kind = 'late' AND h.id IS NULL
