-- Payments that become no credit, as those of a plan without included credit, have a row too, so
-- that they are listed, refunded and compared with Stripe. They have no posting. All three
-- constraints allow what they allowed and more, so rows of before need no check.
ALTER TABLE payments ALTER COLUMN posting_id DROP NOT NULL,
    DROP CONSTRAINT payments_credited_picos_check,
    ADD CONSTRAINT payments_credited_picos_check CHECK (credited_picos >= 0) NOT VALID,
    ADD CONSTRAINT payments_posting CHECK ((posting_id IS NULL) = (credited_picos = 0)) NOT VALID;
ALTER TABLE payment_reversals ALTER COLUMN posting_id DROP NOT NULL,
    DROP CONSTRAINT payment_reversals_amount_picos_check,
    ADD CONSTRAINT payment_reversals_posting
        CHECK ((posting_id IS NULL) = (amount_picos = 0)) NOT VALID;

-- Days after the payment for which bought credit can be used; NULL: it never expires. A purchase
-- keeps the terms under which it was opened.
ALTER TABLE selling_terms ADD COLUMN credit_days integer CHECK (credit_days BETWEEN 1 AND 3660);
ALTER TABLE purchases ADD COLUMN credit_days integer CHECK (credit_days BETWEEN 1 AND 3660);

-- While its collection is paused, a subscription charges nothing and gives nothing.
ALTER TABLE subscriptions ADD COLUMN is_paused boolean NOT NULL DEFAULT false;

-- Limit rules of requests in a day and a month (UTC).
ALTER TABLE limit_rules
    ADD COLUMN requests_per_day   integer CHECK (requests_per_day > 0),
    ADD COLUMN requests_per_month integer CHECK (requests_per_month > 0),
    DROP CONSTRAINT limit_rules_check1,
    ADD CONSTRAINT limit_rules_limit CHECK (coalesce(
        requests_per_minute, tokens_per_minute, requests_per_day, requests_per_month) IS NOT NULL);
