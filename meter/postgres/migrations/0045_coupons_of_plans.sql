-- The plans whose accounts may redeem a coupon; NULL: those of every plan.
ALTER TABLE coupons
    ADD COLUMN plan_ids text[] CHECK (cardinality(plan_ids) BETWEEN 1 AND 20);
