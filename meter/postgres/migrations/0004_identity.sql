-- Who may do what: keys with a whole life, passes (JWTs of ours), identities of other issuers,
-- certificates; scopes, limits, budgets; the audit log.

-- Terms of plans: what each account of it may do in a minute, what each of its keys may, and which
-- keys users may make themselves. NULL means that there is no limit.
ALTER TABLE plans
    ADD COLUMN tokens_per_minute       bigint CHECK (tokens_per_minute > 0),
    ADD COLUMN concurrent_requests     integer CHECK (concurrent_requests > 0),
    ADD COLUMN key_requests_per_minute integer CHECK (key_requests_per_minute > 0),
    ADD COLUMN key_tokens_per_minute   bigint CHECK (key_tokens_per_minute > 0),
    ADD COLUMN key_concurrent_requests integer CHECK (key_concurrent_requests > 0),
    ADD COLUMN max_keys                integer NOT NULL DEFAULT 100 CHECK (max_keys >= 0),
    ADD COLUMN self_service_scopes     text[] NOT NULL
        DEFAULT '{inference,models:read,usage:read,keys:write}';

-- An account's own limits go before those of its plan.
ALTER TABLE accounts
    ADD COLUMN requests_per_minute integer CHECK (requests_per_minute > 0),
    ADD COLUMN tokens_per_minute   bigint CHECK (tokens_per_minute > 0),
    ADD COLUMN concurrent_requests integer CHECK (concurrent_requests > 0),
    ADD COLUMN may_manage_keys     boolean NOT NULL DEFAULT true;

-- Issuers of JWTs that are believed. `terms` is what their claims mean; `keys` is the last key set
-- fetched, kept so that an outage of the issuer and a restart of ours together lock nobody out.
CREATE TABLE issuers (
    id              text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    url             text NOT NULL UNIQUE CHECK (length(url) BETWEEN 9 AND 500),
    terms           jsonb NOT NULL,
    is_enabled      boolean NOT NULL DEFAULT true,
    keys            jsonb,
    keys_fetched_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row for everything that may act for an account. `key`: an API key. `identity`: a subject of
-- an issuer. `certificate`: a name in a client certificate. `issued`: what administrators and
-- trusted routes act as where the account itself gave no credential.
ALTER TABLE credentials
    ADD COLUMN kind                text NOT NULL DEFAULT 'key'
        CHECK (kind IN ('key', 'identity', 'certificate', 'issued')),
    ADD COLUMN scopes              text[] NOT NULL DEFAULT '{inference,models:read,usage:read}',
    ADD COLUMN allowed_addresses   text[],
    ADD COLUMN suspended_at        timestamptz,
    ADD COLUMN requests_per_minute integer CHECK (requests_per_minute > 0),
    ADD COLUMN tokens_per_minute   bigint CHECK (tokens_per_minute > 0),
    ADD COLUMN concurrent_requests integer CHECK (concurrent_requests > 0),
    ADD COLUMN budget_day_picos    bigint CHECK (budget_day_picos >= 0),
    ADD COLUMN budget_week_picos   bigint CHECK (budget_week_picos >= 0),
    ADD COLUMN budget_month_picos  bigint CHECK (budget_month_picos >= 0),
    ADD COLUMN budget_total_picos  bigint CHECK (budget_total_picos >= 0),
    ADD COLUMN tags                jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN created_by          text NOT NULL DEFAULT 'operator',
    ADD COLUMN issuer_id           text REFERENCES issuers (id),
    ADD COLUMN subject             text CHECK (length(subject) BETWEEN 1 AND 512),
    -- The newest token seen of an identity: an older one must not bring an old plan back.
    ADD COLUMN token_issued_at     timestamptz,
    ALTER COLUMN prefix DROP NOT NULL,
    ADD CHECK ((kind = 'key') = (prefix IS NOT NULL)),
    ADD CHECK ((kind IN ('identity', 'certificate')) = (subject IS NOT NULL)),
    ADD CHECK ((kind = 'identity') = (issuer_id IS NOT NULL));

CREATE UNIQUE INDEX credentials_subject ON credentials (coalesce(issuer_id, ''), subject)
    WHERE subject IS NOT NULL;
CREATE UNIQUE INDEX credentials_issued ON credentials (account_id) WHERE kind = 'issued';

-- A key's secrets: one, or two while it is being rotated. Digests only.
CREATE TABLE credential_secrets (
    digest        bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    credential_id text NOT NULL REFERENCES credentials (id),
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ends_at       timestamptz
);

CREATE INDEX credential_secrets_credential ON credential_secrets (credential_id);

INSERT INTO credential_secrets (digest, credential_id, created_at)
SELECT digest, id, created_at FROM credentials;

ALTER TABLE credentials DROP COLUMN digest;

-- When credentials were last used; written now and then for many at once.
CREATE TABLE credential_uses (
    credential_id text PRIMARY KEY,
    last_used_at  timestamptz NOT NULL
) WITH (fillfactor = 50);

-- JWTs of ours: what each may do at most, and whether it still may. The id is the `jti`.
CREATE TABLE passes (
    id             text PRIMARY KEY CHECK (length(id) BETWEEN 16 AND 64),
    credential_id  text NOT NULL REFERENCES credentials (id),
    account_id     text NOT NULL REFERENCES accounts (id),
    scopes         text[] NOT NULL,
    allowed_models text[],
    budget_picos   bigint CHECK (budget_picos >= 0),
    created_by     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz NOT NULL,
    revoked_at     timestamptz
);

CREATE INDEX passes_credential ON passes (credential_id, created_at, id);
CREATE INDEX passes_account ON passes (account_id, created_at, id);
CREATE INDEX passes_expiry ON passes (expires_at);

-- Keys that sign our JWTs, sealed like provider keys. Published from `created_at` until
-- `published_until`; the one that signs is the youngest with `signs_from` in the past.
CREATE TABLE signing_keys (
    id              text PRIMARY KEY,
    algorithm       text NOT NULL CHECK (algorithm IN ('EdDSA', 'RS256')),
    public_jwk      jsonb NOT NULL,
    sealed          bytea NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    signs_from      timestamptz NOT NULL,
    published_until timestamptz
);

-- Limits beside those of keys, accounts and plans: shared by a whole plan or by everybody, or for
-- some models only. In shadow mode they are counted and reported, and refuse nobody.
CREATE TABLE limit_rules (
    id                  text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    applies_to          text NOT NULL CHECK (applies_to IN ('everyone', 'plan', 'account', 'key')),
    applies_id          text CHECK ((applies_to = 'everyone') = (applies_id IS NULL)),
    counted_per         text NOT NULL CHECK (counted_per IN ('rule', 'account', 'key')),
    model_pattern       text CHECK (length(model_pattern) BETWEEN 1 AND 200),
    requests_per_minute integer CHECK (requests_per_minute > 0),
    tokens_per_minute   bigint CHECK (tokens_per_minute > 0),
    is_shadow           boolean NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (requests_per_minute IS NOT NULL OR tokens_per_minute IS NOT NULL)
);

-- Who did what when. Nobody changes or removes a line; not even the owner, while the trigger is on.
CREATE TABLE audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    action     text NOT NULL,
    subject    text NOT NULL,
    account_id text,
    detail     jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX audit_log_account ON audit_log (account_id, id);
SELECT make_immutable('audit_log');

-- What budgets have used: per key or pass, and per period in which the holds were placed. There are
-- rows only where there is a budget. They change under the lock of their account alone.
CREATE TABLE spending (
    subject     text NOT NULL,
    period      text NOT NULL CHECK (period IN ('day', 'week', 'month', 'total')),
    starts_on   date NOT NULL,
    spent_picos bigint NOT NULL DEFAULT 0,
    held_picos  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, period, starts_on)
) WITH (fillfactor = 50);

-- The first day of the period that an instant lies in: days, weeks from Monday and months of UTC.
CREATE FUNCTION period_start(period text, instant timestamptz) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE period
        WHEN 'total' THEN DATE '1970-01-01'
        ELSE date_trunc(period, instant AT TIME ZONE 'UTC')::date
    END
$$;

-- Applies charges and frees what was held to the budgets of keys and passes. The caller has the
-- accounts locked. `placed` is when each hold was placed: that is the period it counts in.
CREATE FUNCTION move_spending(
    subjects text[], placed timestamptz[], charges bigint[], freed bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM spending s WHERE s.subject = ANY (subjects)) THEN
        RETURN;
    END IF;
    UPDATE spending s SET
        spent_picos = s.spent_picos + m.charge,
        held_picos = s.held_picos - m.freed
    FROM (
        SELECT u.subject, p.period, period_start(p.period, u.placed) AS starts_on,
               sum(u.charge)::bigint AS charge, sum(u.freed)::bigint AS freed
        FROM unnest(subjects, placed, charges, freed) AS u (subject, placed, charge, freed)
        CROSS JOIN (VALUES ('day'), ('week'), ('month'), ('total')) AS p (period)
        GROUP BY 1, 2, 3
    ) m
    WHERE s.subject = m.subject AND s.period = m.period AND s.starts_on = m.starts_on;
END $$;

-- Balances, then budgets, under the same locks.
CREATE FUNCTION move_money(
    account_ids text[], charges bigint[], freed bigint[], excesses bigint[],
    subjects text[], placed timestamptz[], subject_charges bigint[], subject_freed bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM move_balances(account_ids, charges, freed, excesses);
    PERFORM move_spending(subjects, placed, subject_charges, subject_freed);
END $$;

-- Begins to count a budget of a key, from what the books say of the present period; without a
-- limit, forgets it. The caller has the key's account locked, so nothing is counted twice.
CREATE FUNCTION count_spending(key_id text, counted_period text, has_limit boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    since     date := period_start(counted_period, clock_timestamp());
    opens     timestamptz := since::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF NOT has_limit THEN
        DELETE FROM spending s WHERE s.subject = key_id AND s.period = counted_period;
        RETURN;
    END IF;
    INSERT INTO spending (subject, period, starts_on, spent_picos, held_picos)
    SELECT key_id, counted_period, since,
           coalesce((SELECT sum(u.charge_picos) FROM usage_records u
                     WHERE u.credential_id = key_id AND u.placed_at >= opens), 0)::bigint,
           coalesce((SELECT sum(h.amount_picos) FROM holds h
                     WHERE h.credential_id = key_id AND h.created_at >= opens), 0)::bigint
    ON CONFLICT DO NOTHING;
END $$;

-- What a hold counts in beside its account: the pass that it was placed with, the tokens that were
-- counted against limits when it was placed, to be put right once its usage is known, and whether
-- it counts as a concurrent request. Only such holds are in the index.
ALTER TABLE holds
    ADD COLUMN pass_id        text,
    ADD COLUMN counted_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN token_buckets  text[],
    ADD COLUMN is_counted     boolean NOT NULL DEFAULT false;
ALTER TABLE ended_holds ADD COLUMN pass_id text;

CREATE INDEX holds_concurrent ON holds (account_id, credential_id)
    WHERE is_counted AND state = 'open';

CREATE OR REPLACE FUNCTION end_holds(hold_ids uuid[], states text[], reasons text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    ended bigint;
BEGIN
    WITH gone AS (
        DELETE FROM holds h WHERE h.id = ANY (hold_ids) RETURNING h.*
    )
    INSERT INTO ended_holds (id, placed_at, account_id, credential_id, model_id, endpoint,
                             price_id, markup_bps, amount_picos, flat_cost_picos, max_tokens,
                             request_id, state, reason, pass_id)
    SELECT g.id, g.created_at, g.account_id, g.credential_id, g.model_id, g.endpoint, g.price_id,
           g.markup_bps, g.amount_picos, g.flat_cost_picos, g.max_tokens, g.request_id,
           e.state, e.reason, g.pass_id
    FROM gone g JOIN unnest(hold_ids, states, reasons) AS e (id, state, reason) ON e.id = g.id;
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- What the budgets of a key and a pass leave, in pico-dollars; NULL where there is none.
CREATE FUNCTION budget_left(
    key_id text, day_limit bigint, week_limit bigint, month_limit bigint, total_limit bigint,
    pass_id text, pass_limit bigint, instant timestamptz
) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT min(b.most::numeric - coalesce(s.spent_picos, 0) - coalesce(s.held_picos, 0))
    FROM (VALUES (key_id, 'day', day_limit), (key_id, 'week', week_limit),
                 (key_id, 'month', month_limit), (key_id, 'total', total_limit),
                 (pass_id, 'total', pass_limit)) AS b (subject, period, most)
    LEFT JOIN spending s ON s.subject = b.subject AND s.period = b.period
                        AND s.starts_on = period_start(b.period, instant)
    WHERE b.most IS NOT NULL
$$;

-- Sets an amount aside in the same budgets.
CREATE FUNCTION hold_in_budgets(
    key_id text, day_limit bigint, week_limit bigint, month_limit bigint, total_limit bigint,
    pass_id text, pass_limit bigint, instant timestamptz, amount bigint
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO spending AS s (subject, period, starts_on, held_picos)
    SELECT b.subject, b.period, period_start(b.period, instant), amount
    FROM (VALUES (key_id, 'day', day_limit), (key_id, 'week', week_limit),
                 (key_id, 'month', month_limit), (key_id, 'total', total_limit),
                 (pass_id, 'total', pass_limit)) AS b (subject, period, most)
    WHERE b.most IS NOT NULL
    ON CONFLICT (subject, period, starts_on)
        DO UPDATE SET held_picos = s.held_picos + excluded.held_picos
$$;

DROP FUNCTION place_holds(uuid[], text[], text[], text[], text[], bigint[], integer[], bigint[],
                          bigint[], bigint[], bigint[], bigint[], uuid[], interval);

-- Places a batch of holds: locks the accounts in order, admits what each balance covers, in the
-- order asked, and sets it aside. The credential, its pass, its budgets and the concurrent requests
-- are judged here as well, under the same locks as the money, so that no cache can let a revoked
-- key spend and no two processes can pass a budget together.
CREATE FUNCTION place_holds(
    hold_ids           uuid[],
    account_ids        text[],
    credential_ids     text[],
    pass_ids           text[],
    model_ids          text[],
    endpoints          text[],
    price_ids          bigint[],
    markups_bps        integer[],
    fixed_picos        bigint[],
    per_token_picos    bigint[],
    min_tokens         bigint[],
    max_tokens         bigint[],
    flat_cost_picos    bigint[],
    request_ids        uuid[],
    account_concurrent integer[],
    key_concurrent     integer[],
    counted_tokens     bigint[],
    -- Several names with spaces between: an array of arrays would have to be square.
    token_buckets      text[],
    lifetime           interval
) RETURNS TABLE (
    hold_id uuid, verdict text, amount bigint, granted_tokens bigint, available bigint
) LANGUAGE plpgsql AS $$
DECLARE
    asked            record;
    current_account  text;
    left_picos       numeric;
    budget_picos     numeric;
    usable_picos     numeric;
    is_full          boolean;
    tokens           bigint;
    total            numeric;
    held_ids         uuid[] := '{}';
    held_positions   integer[] := '{}';
    held_amounts     bigint[] := '{}';
    held_tokens      bigint[] := '{}';
    placed_at        timestamptz;
BEGIN
    PERFORM 1 FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id FOR NO KEY UPDATE;
    placed_at := clock_timestamp();
    FOR asked IN
        SELECT q.*, a.balance_picos - a.held_picos AS available_picos, a.is_suspended,
               c.budget_day_picos, c.budget_week_picos, c.budget_month_picos,
               c.budget_total_picos, x.budget_picos AS pass_budget_picos,
               coalesce(c.budget_day_picos, c.budget_week_picos, c.budget_month_picos,
                        c.budget_total_picos, x.budget_picos) IS NOT NULL AS has_budget,
               coalesce(c.account_id = q.account_id AND c.revoked_at IS NULL
                        AND c.suspended_at IS NULL
                        AND (c.expires_at IS NULL OR c.expires_at > placed_at)
                        AND (q.pass_id IS NULL OR (x.credential_id = c.id
                                                   AND x.revoked_at IS NULL
                                                   AND x.expires_at > placed_at))
                        AND (c.issuer_id IS NULL OR i.is_enabled),
                        false) AS is_live
        FROM unnest(hold_ids, account_ids, credential_ids, pass_ids, fixed_picos, per_token_picos,
                    min_tokens, max_tokens, account_concurrent, key_concurrent)
             WITH ORDINALITY AS q (id, account_id, credential_id, pass_id, fixed, per_token,
                                   fewest, most, account_most, key_most, position)
        LEFT JOIN accounts a ON a.id = q.account_id
        LEFT JOIN credentials c ON c.id = q.credential_id
        LEFT JOIN passes x ON x.id = q.pass_id
        LEFT JOIN issuers i ON i.id = c.issuer_id
        ORDER BY q.account_id, q.position
    LOOP
        IF current_account IS DISTINCT FROM asked.account_id THEN
            current_account := asked.account_id;
            left_picos := coalesce(asked.available_picos, 0);
        END IF;
        hold_id := asked.id;
        available := left_picos::bigint;
        granted_tokens := 0;
        amount := least(asked.fixed + asked.per_token::numeric * asked.fewest,
                        9223372036854775807)::bigint;
        usable_picos := left_picos;
        budget_picos := NULL;
        is_full := false;
        IF asked.is_live AND asked.has_budget THEN
            budget_picos := budget_left(
                asked.credential_id, asked.budget_day_picos, asked.budget_week_picos,
                asked.budget_month_picos, asked.budget_total_picos, asked.pass_id,
                asked.pass_budget_picos, placed_at);
            usable_picos := least(left_picos, budget_picos);
        END IF;
        IF asked.account_most IS NOT NULL OR asked.key_most IS NOT NULL THEN
            SELECT coalesce(count(*) >= asked.account_most, false)
                   OR coalesce(count(*) FILTER (WHERE live.credential_id = asked.credential_id)
                               >= asked.key_most, false)
            INTO is_full
            FROM (SELECT h.credential_id FROM holds h
                  WHERE h.is_counted AND h.state = 'open' AND h.account_id = asked.account_id
                  UNION ALL
                  SELECT credential_ids[p] FROM unnest(held_positions) p
                  WHERE account_ids[p] = asked.account_id) live;
        END IF;
        IF NOT asked.is_live THEN
            verdict := 'credential_ended';
        ELSIF asked.is_suspended THEN
            verdict := 'account_suspended';
        ELSIF is_full THEN
            verdict := 'too_many_concurrent';
        ELSE
            tokens := asked.most;
            IF asked.per_token > 0 THEN
                tokens := least(tokens, floor((usable_picos - asked.fixed) / asked.per_token));
            END IF;
            IF usable_picos < 0 OR usable_picos < asked.fixed OR tokens < asked.fewest THEN
                verdict := 'insufficient';
                IF budget_picos < left_picos THEN
                    verdict := 'budget_exceeded';
                    available := greatest(budget_picos, -9223372036854775807)::bigint;
                END IF;
            ELSE
                verdict := 'held';
                total := asked.fixed + asked.per_token::numeric * tokens;
                left_picos := left_picos - total;
                amount := total::bigint;
                granted_tokens := tokens;
                held_ids := held_ids || asked.id;
                held_positions := held_positions || asked.position::integer;
                held_amounts := held_amounts || amount;
                held_tokens := held_tokens || tokens;
                IF asked.has_budget THEN
                    PERFORM hold_in_budgets(
                        asked.credential_id, asked.budget_day_picos, asked.budget_week_picos,
                        asked.budget_month_picos, asked.budget_total_picos, asked.pass_id,
                        asked.pass_budget_picos, placed_at, amount);
                END IF;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF cardinality(held_ids) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO holds (id, account_id, credential_id, pass_id, model_id, endpoint, price_id,
                       markup_bps, amount_picos, flat_cost_picos, max_tokens, request_id,
                       counted_tokens, token_buckets, is_counted, created_at, expires_at)
    SELECT h.id, account_ids[h.i], credential_ids[h.i], pass_ids[h.i], model_ids[h.i],
           endpoints[h.i], price_ids[h.i], markups_bps[h.i], h.amount, flat_cost_picos[h.i],
           h.tokens, request_ids[h.i], counted_tokens[h.i],
           string_to_array(token_buckets[h.i], ' '),
           account_concurrent[h.i] IS NOT NULL OR key_concurrent[h.i] IS NOT NULL,
           placed_at, placed_at + lifetime
    FROM unnest(held_ids, held_positions, held_amounts, held_tokens) AS h (id, i, amount, tokens);
    UPDATE accounts a SET held_picos = a.held_picos + s.amount, overdrawn_picos = 0
    FROM (SELECT account_ids[h.i] AS account_id, sum(h.amount)::bigint AS amount
          FROM unnest(held_positions, held_amounts) AS h (i, amount) GROUP BY 1) s
    WHERE a.id = s.account_id;
END $$;

-- Ends holds without a charge; those that ended already, or do not exist, change nothing.
CREATE OR REPLACE FUNCTION release_holds(hold_ids uuid[], reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    live        uuid[];
    account_ids text[];
    amounts     bigint[];
    nothing     bigint[];
    subjects    text[];
    placed      timestamptz[];
    freed       bigint[];
BEGIN
    WITH locked AS (
        SELECT h.id, h.account_id, h.amount_picos, h.created_at, h.credential_id, h.pass_id
        FROM holds h WHERE h.id = ANY (hold_ids) ORDER BY h.id FOR NO KEY UPDATE
    ), sums AS (
        SELECT account_id, sum(amount_picos)::bigint AS amount FROM locked GROUP BY account_id
    ), parts AS (
        SELECT l.created_at, l.amount_picos, s.subject
        FROM locked l CROSS JOIN LATERAL (VALUES (l.credential_id), (l.pass_id)) AS s (subject)
        WHERE s.subject IS NOT NULL
    )
    SELECT (SELECT array_agg(id) FROM locked),
           (SELECT array_agg(account_id ORDER BY account_id) FROM sums),
           (SELECT array_agg(amount ORDER BY account_id) FROM sums),
           (SELECT array_agg(subject ORDER BY subject, created_at, amount_picos) FROM parts),
           (SELECT array_agg(created_at ORDER BY subject, created_at, amount_picos) FROM parts),
           (SELECT array_agg(amount_picos ORDER BY subject, created_at, amount_picos) FROM parts)
    INTO live, account_ids, amounts, subjects, placed, freed;
    IF live IS NULL THEN
        RETURN 0;
    END IF;
    nothing := array_fill(0::bigint, ARRAY[cardinality(amounts)]);
    PERFORM end_holds(live, array_fill('released'::text, ARRAY[cardinality(live)]),
                      array_fill(reason, ARRAY[cardinality(live)]));
    PERFORM move_money(account_ids, nothing, amounts, nothing, subjects, placed,
                       array_fill(0::bigint, ARRAY[cardinality(freed)]), freed);
    RETURN cardinality(live);
END $$;

-- Everything that may act now, with the terms that apply to it. What ended, or was suspended, or
-- belongs to an issuer that is switched off, is not here.
CREATE VIEW live_principals AS
SELECT c.id AS credential_id, c.kind, c.account_id, a.plan_id, a.is_suspended, c.scopes,
       c.allowed_models, c.allowed_addresses, c.expires_at, c.issuer_id, c.subject,
       coalesce(a.markup_bps, p.markup_bps) AS markup_bps,
       coalesce(c.requests_per_minute, p.key_requests_per_minute) AS key_requests_per_minute,
       coalesce(c.tokens_per_minute, p.key_tokens_per_minute) AS key_tokens_per_minute,
       coalesce(c.concurrent_requests, p.key_concurrent_requests) AS key_concurrent_requests,
       coalesce(a.requests_per_minute, p.requests_per_minute) AS account_requests_per_minute,
       coalesce(a.tokens_per_minute, p.tokens_per_minute) AS account_tokens_per_minute,
       coalesce(a.concurrent_requests, p.concurrent_requests) AS account_concurrent_requests
FROM credentials c
JOIN accounts a ON a.id = c.account_id
JOIN plans p ON p.id = a.plan_id
LEFT JOIN issuers i ON i.id = c.issuer_id
WHERE c.revoked_at IS NULL
  AND c.suspended_at IS NULL
  AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
  AND (c.issuer_id IS NULL OR i.is_enabled);
