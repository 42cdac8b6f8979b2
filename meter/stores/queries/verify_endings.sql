-- V3: the settled holds are those with a usage record of the same account, and no others.
SELECT coalesce(h.id, u.hold_id)::text AS id
FROM (SELECT id, account_id FROM holds WHERE state = 'settled') h
FULL JOIN usage_records u ON u.hold_id = h.id AND u.account_id = h.account_id
WHERE h.id IS NULL OR u.hold_id IS NULL
