-- Finds a redemption of a code by an account, whatever became of the code since.
SELECT true FROM coupons c JOIN coupon_redemptions r ON r.coupon_id = c.id
WHERE c.digest = $1 AND r.account_id = $2
