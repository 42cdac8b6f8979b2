-- A coupon by the digest of its code, where it may be redeemed now.
SELECT * FROM coupons
WHERE digest = $1 AND ended_at IS NULL AND redemptions < max_redemptions
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
