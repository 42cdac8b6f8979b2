-- Ends a coupon; those who redeemed it keep the credit.
UPDATE coupons SET ended_at = coalesce(ended_at, clock_timestamp()) WHERE id = $1 RETURNING *
