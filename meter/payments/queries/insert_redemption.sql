-- Records who redeemed a coupon.
INSERT INTO coupon_redemptions (coupon_id, account_id, posting_id) VALUES ($1, $2, $3)
