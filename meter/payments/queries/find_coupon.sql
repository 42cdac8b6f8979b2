-- A coupon by the digest of its code, where it may be redeemed now, and whether it is for the plan
-- of the account $2.
SELECT *, plan_ids IS NULL OR (SELECT a.plan_id FROM accounts a WHERE a.id = $2) = ANY (plan_ids)
              AS is_for_plan
FROM coupons
WHERE digest = $1 AND ended_at IS NULL AND redemptions < max_redemptions
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
