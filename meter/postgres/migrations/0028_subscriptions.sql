-- Subscriptions to plans at Stripe, the invoices that were paid for them, and the prices of plans.
ALTER TABLE purchases DROP CONSTRAINT purchases_kind_check;
ALTER TABLE purchases ADD CONSTRAINT purchases_kind_check
    CHECK (kind IN ('checkout', 'auto_top_up', 'subscription'));

-- The prices that `plans sync` found or made at Stripe. An invoice names its price.
CREATE TABLE plan_prices (
    price_id    text PRIMARY KEY CHECK (length(price_id) BETWEEN 1 AND 255),
    is_live     boolean NOT NULL,
    plan_id     text NOT NULL REFERENCES plans (id),
    price_picos bigint NOT NULL CHECK (price_picos > 0),
    period      text NOT NULL CHECK (period IN ('week', 'month', 'year')),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX plan_prices_plan ON plan_prices (plan_id, is_live, price_picos, period);

-- A subscription as Stripe had it when it was asked at `asked_at`; older answers change nothing.
CREATE TABLE subscriptions (
    id               text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    purchase_id      uuid NOT NULL REFERENCES purchases (id),
    account_id       text NOT NULL REFERENCES accounts (id),
    is_live          boolean NOT NULL,
    status           text NOT NULL CHECK (length(status) BETWEEN 1 AND 50),
    price_id         text NOT NULL,
    period_start     timestamptz NOT NULL,
    period_end       timestamptz NOT NULL,
    cancels_at       timestamptz,
    ended_at         timestamptz,
    asked_at         timestamptz NOT NULL,
    -- The terms of the newest invoice that was paid, until when it was paid for, and whether the
    -- account has these terms now; afterwards it has the plan of before.
    plan_id          text,
    plan_version     integer,
    terms_from       timestamptz,
    paid_until       timestamptz,
    has_terms        boolean NOT NULL DEFAULT false,
    previous_plan_id text REFERENCES plans (id),
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions (plan_id, version),
    CHECK (NOT has_terms OR (plan_version IS NOT NULL AND previous_plan_id IS NOT NULL))
);
CREATE INDEX subscriptions_account ON subscriptions (account_id, created_at);
CREATE INDEX subscriptions_paid_until ON subscriptions (paid_until) WHERE has_terms;

-- Invoices that were paid, each once, with the credit that they became.
CREATE TABLE subscription_invoices (
    id              text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    subscription_id text NOT NULL REFERENCES subscriptions (id),
    account_id      text NOT NULL,
    plan_id         text NOT NULL,
    plan_version    integer NOT NULL,
    paid_cents      bigint NOT NULL CHECK (paid_cents >= 0),
    credited_picos  bigint NOT NULL CHECK (credited_picos >= 0),
    posting_id      uuid UNIQUE,
    period_end      timestamptz NOT NULL,
    paid_at         timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (plan_id, plan_version) REFERENCES plan_versions (plan_id, version),
    CHECK ((posting_id IS NULL) = (credited_picos = 0))
);
CREATE INDEX subscription_invoices_account ON subscription_invoices (account_id, recorded_at);
SELECT make_immutable('subscription_invoices'::regclass);
