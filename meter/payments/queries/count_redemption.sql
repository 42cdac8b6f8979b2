-- Counts a redemption of a coupon that the account $2 may redeem now; no row where it may not.
UPDATE coupons SET redemptions = redemptions + 1
WHERE id = $1 AND ended_at IS NULL AND redemptions < max_redemptions
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
  AND (plan_ids IS NULL OR (SELECT a.plan_id FROM accounts a WHERE a.id = $2) = ANY (plan_ids))
RETURNING id
