-- Stores a coupon by the digest of its code.
INSERT INTO coupons (id, name, digest, amount_picos, max_redemptions, expires_at,
                     credit_days, plan_ids)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *
