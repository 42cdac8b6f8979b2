-- Counts a redemption of a coupon that may be redeemed now; no row where it may not be any more.
UPDATE coupons SET redemptions = redemptions + 1
WHERE id = $1 AND ended_at IS NULL AND redemptions < max_redemptions
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
RETURNING id
