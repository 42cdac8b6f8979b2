-- Stripe's balance transactions of a day (UTC) beside the postings of payments: one row a day.
CREATE TABLE stripe_comparisons (
    is_live     boolean NOT NULL,
    day         date NOT NULL,
    -- When a meter began to compare; NULL while none does.
    begun_at    timestamptz,
    compared_at timestamptz,
    differences integer CHECK (differences >= 0),
    report      jsonb,
    PRIMARY KEY (is_live, day),
    CHECK ((compared_at IS NULL) = (report IS NULL)),
    CHECK ((compared_at IS NULL) = (differences IS NULL))
);
-- What was posted on a day.
CREATE INDEX payments_recorded ON payments (recorded_at);
CREATE INDEX payment_reversals_recorded ON payment_reversals (recorded_at);

-- Going live: the purchase that proves it in each mode, and when all its checks had passed.
CREATE TABLE go_lives (
    is_live     boolean PRIMARY KEY,
    purchase_id uuid NOT NULL REFERENCES purchases (id),
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    passed_at   timestamptz,
    passed_by   text CHECK (length(passed_by) BETWEEN 1 AND 300),
    CHECK ((passed_at IS NULL) = (passed_by IS NULL))
);
