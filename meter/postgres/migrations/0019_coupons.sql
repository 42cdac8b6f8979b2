-- Coupons: codes that give credit, once for each account.
CREATE TABLE coupons (
    id              text PRIMARY KEY CHECK (id ~ '^[a-z2-7]{16}$'),
    name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    -- Codes are kept as a keyed digest, as API keys are: whoever reads the tables redeems none.
    digest          bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    amount_picos    bigint NOT NULL CHECK (amount_picos > 0),
    max_redemptions integer NOT NULL CHECK (max_redemptions > 0),
    redemptions     integer NOT NULL DEFAULT 0,
    expires_at      timestamptz,
    ended_at        timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT coupons_never_redeemed_more CHECK (redemptions <= max_redemptions)
);
CREATE INDEX coupons_created ON coupons (created_at, id);

CREATE TABLE coupon_redemptions (
    coupon_id   text NOT NULL REFERENCES coupons (id),
    account_id  text NOT NULL REFERENCES accounts (id),
    posting_id  uuid NOT NULL UNIQUE,
    redeemed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (coupon_id, account_id)
);

-- The attempts of an account in its present window. Counted before a code is looked up.
CREATE TABLE coupon_attempts (
    account_id   text PRIMARY KEY REFERENCES accounts (id),
    window_began timestamptz NOT NULL,
    attempts     integer NOT NULL
);

SELECT make_immutable('coupon_redemptions'::regclass);
