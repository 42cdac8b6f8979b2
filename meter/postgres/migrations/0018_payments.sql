-- Payments through Stripe: what is sold, what was bought, and what took credit back.

-- The part of an overdraft that refunds and disputes caused. It is never written off: the house
-- bears what its estimates missed, not what a customer took back.
ALTER TABLE accounts
    ADD COLUMN reversed_debt_picos bigint NOT NULL DEFAULT 0 CHECK (reversed_debt_picos >= 0);
CREATE INDEX accounts_reversed_debt ON accounts (id) WHERE reversed_debt_picos > 0;

ALTER TABLE postings DROP CONSTRAINT postings_known_template;
ALTER TABLE postings ADD CONSTRAINT postings_known_template CHECK (template IN (
    'settlement', 'excess', 'reversal', 'correction', 'grant', 'adjustment', 'write_off',
    'payment', 'payment_reversal'));
ALTER TABLE entries DROP CONSTRAINT entries_known_account;
ALTER TABLE entries ADD CONSTRAINT entries_known_account CHECK (ledger_account IN (
    'customer', 'provider', 'revenue', 'grants', 'adjustments', 'losses', 'payments'));

-- The terms under which credit is sold; one row.
CREATE TABLE selling_terms (
    is_the_row            boolean PRIMARY KEY DEFAULT true CHECK (is_the_row),
    least_picos           bigint NOT NULL CHECK (least_picos >= 500000000000),
    most_picos            bigint NOT NULL,
    is_taxed              boolean NOT NULL,
    takes_promotion_codes boolean NOT NULL,
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Stripe charges 50 cents at least and 999,999.99 dollars at most; amounts are whole cents.
    CHECK (most_picos >= least_picos AND most_picos <= 999999990000000000),
    CHECK (least_picos % 10000000000 = 0 AND most_picos % 10000000000 = 0)
);
INSERT INTO selling_terms (least_picos, most_picos, is_taxed, takes_promotion_codes)
VALUES (5000000000000, 500000000000000, false, false);

-- The customer at Stripe that stands for an account, in each mode.
CREATE TABLE stripe_customers (
    account_id  text NOT NULL REFERENCES accounts (id),
    is_live     boolean NOT NULL,
    customer_id text NOT NULL UNIQUE CHECK (length(customer_id) BETWEEN 1 AND 255),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account_id, is_live)
);

-- An intention to buy credit, written before Stripe is asked. Its id is the client reference, the
-- metadata of everything that Stripe makes of it, and the idempotency key.
CREATE TABLE purchases (
    id             uuid PRIMARY KEY,
    account_id     text NOT NULL REFERENCES accounts (id),
    kind           text NOT NULL CHECK (kind IN ('checkout', 'auto_top_up')),
    is_live        boolean NOT NULL,
    amount_picos   bigint NOT NULL CHECK (amount_picos > 0 AND amount_picos % 10000000000 = 0),
    saves_card     boolean NOT NULL,
    state          text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid', 'ended')),
    session_id     text UNIQUE CHECK (length(session_id) BETWEEN 1 AND 255),
    reason         text CHECK (length(reason) BETWEEN 1 AND 500),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    checked_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    CHECK ((ended_at IS NULL) = (state = 'open'))
);
CREATE INDEX purchases_account ON purchases (account_id, created_at, id);
CREATE INDEX purchases_open ON purchases (checked_at) WHERE state = 'open';
-- An account has one automatic top-up in flight, however many meters look at its balance.
CREATE UNIQUE INDEX purchases_one_auto_top_up ON purchases (account_id)
    WHERE kind = 'auto_top_up' AND state = 'open';

-- Money that arrived: one row for each PaymentIntent, committed together with its posting.
CREATE TABLE payments (
    id             text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    seq            bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    purchase_id    uuid NOT NULL REFERENCES purchases (id),
    account_id     text NOT NULL,
    is_live        boolean NOT NULL,
    paid_cents     bigint NOT NULL CHECK (paid_cents > 0),
    credited_picos bigint NOT NULL CHECK (credited_picos > 0),
    posting_id     uuid NOT NULL UNIQUE,
    receipt_url    text CHECK (length(receipt_url) BETWEEN 1 AND 2000),
    paid_at        timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX payments_account ON payments (account_id, seq);

-- What took credit of a payment back, and what gave it back again: by refund or dispute and kind.
CREATE TABLE payment_reversals (
    cause        text PRIMARY KEY CHECK (length(cause) BETWEEN 1 AND 300),
    seq          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    payment_id   text NOT NULL REFERENCES payments (id),
    account_id   text NOT NULL,
    kind         text NOT NULL CHECK (kind IN (
        'refund', 'refund_failed', 'dispute_withdrawn', 'dispute_reinstated')),
    cents        bigint NOT NULL CHECK (cents > 0),
    amount_picos bigint NOT NULL CHECK (amount_picos <> 0),
    posting_id   uuid NOT NULL UNIQUE,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX payment_reversals_payment ON payment_reversals (payment_id, seq);

-- Stripe's events, each once. An event only names the object to fetch, so no payload is kept.
CREATE TABLE stripe_events (
    id              text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    seq             bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    type            text NOT NULL CHECK (length(type) BETWEEN 1 AND 255),
    object_id       text NOT NULL CHECK (length(object_id) <= 255),
    is_live         boolean NOT NULL,
    source          text NOT NULL CHECK (source IN ('webhook', 'sweep')),
    state           text NOT NULL CHECK (state IN (
        'waiting', 'done', 'foreign', 'unknown', 'parked')),
    happened_at     timestamptz NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at         timestamptz,
    error           text CHECK (length(error) BETWEEN 1 AND 500)
);
CREATE INDEX stripe_events_waiting ON stripe_events (next_attempt_at) WHERE state = 'waiting';
CREATE INDEX stripe_events_parked ON stripe_events (seq) WHERE state = 'parked';

-- Up to which instant the sweep has listed the events of Stripe, in each mode.
CREATE TABLE stripe_sweeps (
    is_live      boolean PRIMARY KEY,
    listed_up_to timestamptz NOT NULL,
    swept_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

SELECT make_immutable(name::regclass)
FROM unnest(ARRAY['payments', 'payment_reversals']) AS name;
