-- Plans with a history: the terms of a plan are versions, which never change. Limits of requests in
-- a day and a month.

ALTER TABLE credentials
    ADD COLUMN requests_per_day   integer CHECK (requests_per_day > 0),
    ADD COLUMN requests_per_month integer CHECK (requests_per_month > 0);
-- An account with a `plan_version` is in a period of a subscription; others have the newest one.
ALTER TABLE accounts
    ADD COLUMN requests_per_day   integer,
    ADD COLUMN requests_per_month integer,
    ADD COLUMN plan_version       integer;

CREATE TABLE plan_versions (
    plan_id                 text NOT NULL REFERENCES plans (id),
    version                 integer NOT NULL CHECK (version > 0),
    name                    text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    markup_bps              integer NOT NULL CHECK (markup_bps BETWEEN 0 AND 1000000),
    -- What a period costs and how long it is; NULL for a plan that is not sold. Whole cents.
    price_picos             bigint CHECK (price_picos > 0 AND price_picos % 10000000000 = 0
                                          AND price_picos <= 999999990000000000),
    period                  text CHECK (period IN ('week', 'month', 'year')),
    included_picos          bigint NOT NULL DEFAULT 0 CHECK (included_picos >= 0),
    trial_days              integer NOT NULL DEFAULT 0 CHECK (trial_days BETWEEN 0 AND 730),
    trial_picos             bigint NOT NULL DEFAULT 0 CHECK (trial_picos >= 0),
    position                integer NOT NULL DEFAULT 0,
    is_most_popular         boolean NOT NULL DEFAULT false,
    requests_per_minute     integer CHECK (requests_per_minute > 0),
    tokens_per_minute       bigint CHECK (tokens_per_minute > 0),
    concurrent_requests     integer CHECK (concurrent_requests > 0),
    requests_per_day        integer CHECK (requests_per_day > 0),
    requests_per_month      integer CHECK (requests_per_month > 0),
    key_requests_per_minute integer CHECK (key_requests_per_minute > 0),
    key_tokens_per_minute   bigint CHECK (key_tokens_per_minute > 0),
    key_concurrent_requests integer CHECK (key_concurrent_requests > 0),
    key_requests_per_day    integer CHECK (key_requests_per_day > 0),
    key_requests_per_month  integer CHECK (key_requests_per_month > 0),
    max_keys                integer NOT NULL CHECK (max_keys >= 0),
    self_service_scopes     text[] NOT NULL,
    created_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by              text NOT NULL CHECK (length(created_by) BETWEEN 1 AND 200),
    PRIMARY KEY (plan_id, version),
    CHECK ((price_picos IS NULL) = (period IS NULL)),
    CHECK (price_picos IS NOT NULL OR included_picos + trial_days + trial_picos = 0),
    CHECK (trial_days > 0 OR trial_picos = 0)
);

INSERT INTO plan_versions (plan_id, version, name, markup_bps, requests_per_minute,
    tokens_per_minute, concurrent_requests, key_requests_per_minute, key_tokens_per_minute,
    key_concurrent_requests, max_keys, self_service_scopes, created_by)
SELECT id, 1, name, markup_bps, requests_per_minute, tokens_per_minute, concurrent_requests,
       key_requests_per_minute, key_tokens_per_minute, key_concurrent_requests, max_keys,
       self_service_scopes, 'system'
FROM plans;

-- New periods get `current_version`. Running ones have `least_version` or a later one, by which a
-- change applies to all accounts at once, and to one row.
ALTER TABLE plans
    ADD COLUMN current_version integer NOT NULL DEFAULT 1,
    ADD COLUMN least_version   integer NOT NULL DEFAULT 1,
    ADD COLUMN retired_at      timestamptz,
    ADD CHECK (least_version <= current_version);

-- The terms that apply to each account now.
CREATE VIEW account_plans AS
SELECT a.id AS account_id, v.*
FROM accounts a
JOIN plans p ON p.id = a.plan_id
JOIN plan_versions v ON v.plan_id = p.id
 AND v.version = CASE WHEN a.plan_version IS NULL THEN p.current_version
                      ELSE greatest(a.plan_version, p.least_version) END;

-- As before, with the terms of the plan's version.
CREATE OR REPLACE VIEW live_principals AS
SELECT c.id AS credential_id, c.kind, c.account_id, a.plan_id, a.is_suspended, c.scopes,
       c.allowed_models, c.allowed_addresses, c.expires_at, c.issuer_id, c.subject,
       coalesce(a.markup_bps, p.markup_bps) AS markup_bps,
       coalesce(c.requests_per_minute, p.key_requests_per_minute) AS key_requests_per_minute,
       coalesce(c.tokens_per_minute, p.key_tokens_per_minute) AS key_tokens_per_minute,
       coalesce(c.concurrent_requests, p.key_concurrent_requests) AS key_concurrent_requests,
       coalesce(a.requests_per_minute, p.requests_per_minute) AS account_requests_per_minute,
       coalesce(a.tokens_per_minute, p.tokens_per_minute) AS account_tokens_per_minute,
       coalesce(a.concurrent_requests, p.concurrent_requests) AS account_concurrent_requests,
       coalesce(c.budget_day_picos, c.budget_week_picos, c.budget_month_picos,
                c.budget_total_picos) IS NOT NULL AS has_budget,
       coalesce(c.requests_per_day, p.key_requests_per_day) AS key_requests_per_day,
       coalesce(c.requests_per_month, p.key_requests_per_month) AS key_requests_per_month,
       coalesce(a.requests_per_day, p.requests_per_day) AS account_requests_per_day,
       coalesce(a.requests_per_month, p.requests_per_month) AS account_requests_per_month
FROM credentials c
JOIN accounts a ON a.id = c.account_id
JOIN account_plans p ON p.account_id = a.id
LEFT JOIN issuers i ON i.id = c.issuer_id
WHERE c.revoked_at IS NULL
  AND c.suspended_at IS NULL
  AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
  AND (c.issuer_id IS NULL OR i.is_enabled);

ALTER TABLE plans
    DROP COLUMN name, DROP COLUMN markup_bps, DROP COLUMN requests_per_minute,
    DROP COLUMN tokens_per_minute, DROP COLUMN concurrent_requests,
    DROP COLUMN key_requests_per_minute, DROP COLUMN key_tokens_per_minute,
    DROP COLUMN key_concurrent_requests, DROP COLUMN max_keys, DROP COLUMN self_service_scopes;

-- In the same order, so that a version exists whenever its plan is seen.
ALTER TABLE plans ADD FOREIGN KEY (id, current_version)
    REFERENCES plan_versions (plan_id, version) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE accounts ADD FOREIGN KEY (plan_id, plan_version)
    REFERENCES plan_versions (plan_id, version);

DROP VIEW listed_credentials;
CREATE VIEW listed_credentials AS
SELECT c.*, u.last_used_at,
       (SELECT max(s.ends_at) FROM credential_secrets s
        WHERE s.credential_id = c.id AND s.ends_at > clock_timestamp()) AS previous_ends_at
FROM credentials c
LEFT JOIN credential_uses u ON u.credential_id = c.id;

CREATE OR REPLACE FUNCTION check_account_terms() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong text := CASE
        WHEN NEW.id !~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$' THEN 'id'
        WHEN length(NEW.email) NOT BETWEEN 3 AND 320 THEN 'email'
        WHEN length(NEW.name) NOT BETWEEN 1 AND 200 THEN 'name'
        WHEN NEW.markup_bps NOT BETWEEN 0 AND 1000000 THEN 'markup_bps'
        WHEN NEW.requests_per_minute <= 0 THEN 'requests_per_minute'
        WHEN NEW.tokens_per_minute <= 0 THEN 'tokens_per_minute'
        WHEN NEW.concurrent_requests <= 0 THEN 'concurrent_requests'
        WHEN NEW.requests_per_day <= 0 THEN 'requests_per_day'
        WHEN NEW.requests_per_month <= 0 THEN 'requests_per_month'
        WHEN NEW.max_debt_picos < 0 THEN 'max_debt_picos'
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE check_violation USING
            MESSAGE = format('the value of accounts.%s is out of range', wrong),
            TABLE = 'accounts', COLUMN = wrong;
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER accounts_terms ON accounts;
CREATE TRIGGER accounts_terms
    AFTER INSERT OR UPDATE OF id, email, name, markup_bps, requests_per_minute, tokens_per_minute,
                              concurrent_requests, requests_per_day, requests_per_month,
                              max_debt_picos
    ON accounts FOR EACH ROW EXECUTE FUNCTION check_account_terms();

SELECT make_immutable('plan_versions'::regclass);

-- The plans that are sold at first. Prices and credit are pico-dollars; markups are to be set.
WITH sold (id, name, price, period, included, a_day, a_month, position, is_most_popular) AS (
    VALUES ('trial', 'Trial', 1, 'week', 5, 100, NULL::integer, 1, false),
           ('starter', 'Starter', 19, 'month', 20, NULL, 1000, 2, false),
           ('professional', 'Professional', 49, 'month', 60, NULL, 10000, 3, true),
           ('enterprise', 'Enterprise', 99, 'month', 150, NULL, NULL, 4, false)),
new AS (INSERT INTO plans (id) SELECT id FROM sold ON CONFLICT DO NOTHING RETURNING id)
INSERT INTO plan_versions (plan_id, version, name, markup_bps, price_picos, period, included_picos,
    requests_per_day, requests_per_month, position, is_most_popular, max_keys, self_service_scopes,
    created_by)
SELECT id, 1, name, 0, price * 1000000000000, period, included * 1000000000000, a_day, a_month,
       position, is_most_popular, 100,
       '{inference,models:read,usage:read,keys:write,billing:write}', 'system'
FROM sold JOIN new USING (id);
