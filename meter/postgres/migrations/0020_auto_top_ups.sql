-- Automatic top-ups: opt-in, by a saved card, within a monthly ceiling.
CREATE TABLE auto_top_ups (
    account_id      text PRIMARY KEY REFERENCES accounts (id),
    threshold_picos bigint NOT NULL CHECK (threshold_picos >= 0),
    amount_picos    bigint NOT NULL CHECK (amount_picos > 0),
    ceiling_picos   bigint NOT NULL CHECK (ceiling_picos >= amount_picos),
    -- Why nothing is charged until the account says so again; NULL while it is charged.
    paused_reason   text CHECK (length(paused_reason) BETWEEN 1 AND 500),
    declines        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
