-- Cheaper holds: a batch is one packed parameter, an ordinary one is judged and placed by one
-- statement, and the rows that every hold updates have few constraints.

-- Postgres parses and evaluates all check constraints of a row at each update, also those of
-- columns that did not change: for accounts that was a sixth of placing a hold. So the terms of an
-- account are checked by a trigger, which runs only where one of them is written. It comes after
-- the update, because a trigger before it would lock the row once more for each hold. The
-- constraints that compare amounts stay: they guard each hold.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT conname FROM pg_constraint
        WHERE conrelid = 'accounts'::regclass AND contype = 'c'
          AND conkey <@ (SELECT array_agg(attnum) FROM pg_attribute
                         WHERE attrelid = 'accounts'::regclass AND attname IN (
                             'id', 'email', 'name', 'markup_bps', 'requests_per_minute',
                             'tokens_per_minute', 'concurrent_requests', 'max_debt_picos'))
    LOOP
        EXECUTE format('ALTER TABLE accounts DROP CONSTRAINT %I', found.conname);
    END LOOP;
END $$;

CREATE FUNCTION check_account_terms() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong text := CASE
        WHEN NEW.id !~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$' THEN 'id'
        WHEN length(NEW.email) NOT BETWEEN 3 AND 320 THEN 'email'
        WHEN length(NEW.name) NOT BETWEEN 1 AND 200 THEN 'name'
        WHEN NEW.markup_bps NOT BETWEEN 0 AND 1000000 THEN 'markup_bps'
        WHEN NEW.requests_per_minute <= 0 THEN 'requests_per_minute'
        WHEN NEW.tokens_per_minute <= 0 THEN 'tokens_per_minute'
        WHEN NEW.concurrent_requests <= 0 THEN 'concurrent_requests'
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

CREATE TRIGGER accounts_terms
    AFTER INSERT OR UPDATE OF id, email, name, markup_bps, requests_per_minute, tokens_per_minute,
                              concurrent_requests, max_debt_picos
    ON accounts FOR EACH ROW EXECUTE FUNCTION check_account_terms();

-- As before, and `has_budget`: it spares the holds of such a key the attempt as ordinary ones.
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
                c.budget_total_picos) IS NOT NULL AS has_budget
FROM credentials c
JOIN accounts a ON a.id = c.account_id
JOIN plans p ON p.id = a.plan_id
LEFT JOIN issuers i ON i.id = c.issuer_id
WHERE c.revoked_at IS NULL
  AND c.suspended_at IS NULL
  AND (c.expires_at IS NULL OR c.expires_at > clock_timestamp())
  AND (c.issuer_id IS NULL OR i.is_enabled);

DROP FUNCTION place_holds(uuid[], text[], text[], text[], text[], text[], bigint[], integer[],
                          bigint[], bigint[], bigint[], bigint[], bigint[], uuid[], integer[],
                          integer[], bigint[], text[], interval, boolean);
DROP FUNCTION budget_left(text, bigint, bigint, bigint, bigint, text, bigint, timestamptz);
DROP FUNCTION hold_in_budgets(text, bigint, bigint, bigint, bigint, text, bigint, timestamptz,
                              bigint);

-- One request of a batch. NULL concurrent requests are no limit.
CREATE TYPE hold_request AS (
    hold_id            uuid,
    account_id         text,
    credential_id      text,
    pass_id            text,
    model_id           text,
    endpoint           text,
    price_id           bigint,
    markup_bps         integer,
    fixed_picos        bigint,
    per_token_picos    bigint,
    min_tokens         bigint,
    max_tokens         bigint,
    flat_cost_picos    bigint,
    request_id         uuid,
    account_concurrent integer,
    key_concurrent     integer,
    counted_tokens     bigint,
    token_buckets      text[]
);

-- Places a batch of holds. It locks the accounts in order, and only then reads what decides: the
-- credential is judged together with the money, so that no cache lets a revoked key spend and no
-- two processes pass a balance, a budget or a limit together. Without `may_wait`, requests of an
-- account that another transaction keeps locked get the verdict 'busy', and nothing waits for it.
--
-- An ordinary request has neither a budget nor a limit of concurrent requests. Where a balance
-- covers all requests of its account in this batch, and all are ordinary, one statement places
-- them. The others are judged one by one, in the order asked: each gets what is left of balance and
-- budgets. The caller says with `has_ordinary` whether the first is worth trying.
CREATE FUNCTION place_holds(
    account_ids text[], requests hold_request[], lifetime interval, may_wait boolean,
    has_ordinary boolean
) RETURNS TABLE (
    hold_id uuid, verdict text, amount bigint, granted_tokens bigint, available bigint
) LANGUAGE plpgsql AS $$
DECLARE
    locked_ids      text[];
    placed_at       timestamptz;
    placed          integer := 0;
    asked           record;
    current_account text;
    left_picos      numeric;
    budget_picos    numeric;
    usable_picos    numeric;
    is_limited      boolean;
    is_full         boolean;
    tokens          bigint;
    total_picos     numeric;
    -- What this batch set aside by key and by pass, and the limited requests that it placed by key
    -- and, under an empty name, of the account: the query that judges one by one does not see them.
    used            jsonb;
    running         jsonb;
    amounts         bigint[];
    grants          bigint[];
BEGIN
    IF may_wait THEN
        PERFORM 1 FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id FOR NO KEY UPDATE;
    END IF;
    SELECT array_agg(l.id), clock_timestamp() INTO locked_ids, placed_at
    FROM (SELECT a.id FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id
          FOR NO KEY UPDATE SKIP LOCKED) l;
    IF has_ordinary THEN
        RETURN QUERY
        WITH asked AS MATERIALIZED (
            SELECT q.*, q.fixed_picos + q.per_token_picos::numeric * q.max_tokens AS whole_picos,
                   c.account_id = q.account_id AND c.revoked_at IS NULL AND c.suspended_at IS NULL
                       AND (c.expires_at IS NULL OR c.expires_at > placed_at)
                       AND (c.issuer_id IS NULL
                            OR (SELECT i.is_enabled FROM issuers i WHERE i.id = c.issuer_id))
                       AND (q.pass_id IS NULL
                            OR (SELECT x.credential_id = c.id AND x.revoked_at IS NULL
                                       AND x.expires_at > placed_at AND x.budget_picos IS NULL
                                FROM passes x WHERE x.id = q.pass_id))
                       AND coalesce(c.budget_day_picos, c.budget_week_picos, c.budget_month_picos,
                                    c.budget_total_picos) IS NULL
                       AND q.account_concurrent IS NULL AND q.key_concurrent IS NULL
                       AND q.max_tokens >= q.min_tokens AS is_ordinary
            FROM unnest(requests) AS q
            LEFT JOIN credentials c ON c.id = q.credential_id
        ), moved AS (
            UPDATE accounts a
            SET held_picos = a.held_picos + s.whole_picos::bigint, overdrawn_picos = 0
            FROM (SELECT account_id, sum(whole_picos) AS whole_picos FROM asked
                  GROUP BY account_id HAVING bool_and(coalesce(is_ordinary, false))) s
            WHERE a.id = s.account_id AND a.id = ANY (locked_ids) AND NOT a.is_suspended
              AND a.balance_picos - a.held_picos >= s.whole_picos
            RETURNING a.id
        )
        INSERT INTO holds AS h (
            id, account_id, credential_id, pass_id, model_id, endpoint, price_id, markup_bps,
            amount_picos, flat_cost_picos, max_tokens, request_id, counted_tokens, token_buckets,
            created_at, expires_at)
        SELECT q.hold_id, q.account_id, q.credential_id, q.pass_id, q.model_id, q.endpoint,
               q.price_id, q.markup_bps, q.whole_picos::bigint, q.flat_cost_picos, q.max_tokens,
               q.request_id, q.counted_tokens, q.token_buckets, placed_at, placed_at + lifetime
        FROM asked q
        -- As a test, not a join: it is hashed, where a join would compare each pair.
        WHERE (q.account_id IN (SELECT m.id FROM moved m)) IS TRUE
        RETURNING h.id, 'held', h.amount_picos, h.max_tokens, 0::bigint;
        GET DIAGNOSTICS placed = ROW_COUNT;
        IF placed = cardinality(requests) THEN
            RETURN;
        END IF;
    END IF;
    used := '{}';
    amounts := array_fill(NULL::bigint, ARRAY[cardinality(requests)]);
    grants := amounts;
    FOR asked IN
        SELECT q.*, a.balance_picos - a.held_picos AS available_picos, a.is_suspended,
               a.id IS NOT NULL AND NOT coalesce(a.id = ANY (locked_ids), false) AS is_busy,
               coalesce(c.account_id = q.account_id AND c.revoked_at IS NULL
                        AND c.suspended_at IS NULL
                        AND (c.expires_at IS NULL OR c.expires_at > placed_at)
                        AND (q.pass_id IS NULL OR (x.credential_id = c.id
                                                   AND x.revoked_at IS NULL
                                                   AND x.expires_at > placed_at))
                        AND (c.issuer_id IS NULL OR i.is_enabled),
                        false) AS is_live,
               b.key_picos, b.pass_picos, n.account_running, n.key_running
        FROM unnest(requests) WITH ORDINALITY AS q
        LEFT JOIN accounts a ON a.id = q.account_id
        LEFT JOIN credentials c ON c.id = q.credential_id
        LEFT JOIN passes x ON x.id = q.pass_id
        LEFT JOIN issuers i ON i.id = c.issuer_id
        CROSS JOIN LATERAL (
            SELECT min(b.left_picos) FILTER (WHERE NOT b.is_pass) AS key_picos,
                   min(b.left_picos) FILTER (WHERE b.is_pass) AS pass_picos
            FROM (SELECT l.is_pass, l.most::numeric - coalesce(s.spent_picos, 0)
                                    - coalesce(s.held_picos, 0) AS left_picos
                  FROM (VALUES (c.id, 'day', c.budget_day_picos, false),
                               (c.id, 'week', c.budget_week_picos, false),
                               (c.id, 'month', c.budget_month_picos, false),
                               (c.id, 'total', c.budget_total_picos, false),
                               (x.id, 'total', x.budget_picos, true))
                      AS l (subject, period, most, is_pass)
                  LEFT JOIN spending s ON s.subject = l.subject AND s.period = l.period
                                      AND s.starts_on = period_start(l.period, placed_at)
                  WHERE l.most IS NOT NULL) b
        ) b
        CROSS JOIN LATERAL (
            SELECT count(*) AS account_running,
                   count(*) FILTER (WHERE h.credential_id = q.credential_id) AS key_running
            FROM holds h
            WHERE (q.account_concurrent IS NOT NULL OR q.key_concurrent IS NOT NULL)
              AND h.is_counted AND h.state = 'open' AND h.account_id = q.account_id
        ) n
        WHERE placed = 0 OR NOT EXISTS (
            SELECT FROM holds h WHERE h.id = q.hold_id AND h.created_at = placed_at)
        ORDER BY q.account_id, q.ordinality
    LOOP
        IF current_account IS DISTINCT FROM asked.account_id THEN
            current_account := asked.account_id;
            left_picos := coalesce(asked.available_picos, 0);
            running := '{"": 0}';
        END IF;
        hold_id := asked.hold_id;
        granted_tokens := 0;
        IF asked.is_busy THEN
            verdict := 'busy';
            amount := 0;
            available := 0;
            RETURN NEXT;
            CONTINUE;
        END IF;
        available := left_picos::bigint;
        amount := least(asked.fixed_picos + asked.per_token_picos::numeric * asked.min_tokens,
                        9223372036854775807)::bigint;
        budget_picos := least(
            asked.key_picos - coalesce((used ->> asked.credential_id)::numeric, 0),
            asked.pass_picos - coalesce((used ->> asked.pass_id)::numeric, 0));
        usable_picos := least(left_picos, budget_picos);
        is_limited := asked.account_concurrent IS NOT NULL OR asked.key_concurrent IS NOT NULL;
        is_full := is_limited AND (
            coalesce(asked.account_running + (running ->> '')::bigint
                     >= asked.account_concurrent, false)
            OR coalesce(asked.key_running + coalesce((running ->> asked.credential_id)::bigint, 0)
                        >= asked.key_concurrent, false));
        IF NOT asked.is_live THEN
            verdict := 'credential_ended';
        ELSIF asked.is_suspended THEN
            verdict := 'account_suspended';
        ELSIF is_full THEN
            verdict := 'too_many_concurrent';
        ELSE
            tokens := asked.max_tokens;
            IF asked.per_token_picos > 0 THEN
                tokens := least(
                    tokens, floor((usable_picos - asked.fixed_picos) / asked.per_token_picos));
            END IF;
            IF usable_picos < 0 OR usable_picos < asked.fixed_picos
                OR tokens < asked.min_tokens THEN
                verdict := 'insufficient';
                IF budget_picos < left_picos THEN
                    verdict := 'budget_exceeded';
                    available := greatest(budget_picos, -9223372036854775807)::bigint;
                END IF;
            ELSE
                verdict := 'held';
                total_picos := asked.fixed_picos + asked.per_token_picos::numeric * tokens;
                left_picos := left_picos - total_picos;
                amount := total_picos::bigint;
                granted_tokens := tokens;
                amounts[asked.ordinality] := amount;
                grants[asked.ordinality] := tokens;
                IF budget_picos IS NOT NULL THEN
                    used := used || jsonb_build_object(
                        asked.credential_id,
                        coalesce((used ->> asked.credential_id)::numeric, 0) + total_picos);
                    IF asked.pass_id IS NOT NULL THEN
                        used := used || jsonb_build_object(
                            asked.pass_id,
                            coalesce((used ->> asked.pass_id)::numeric, 0) + total_picos);
                    END IF;
                END IF;
                IF is_limited THEN
                    running := running || jsonb_build_object(
                        '', (running ->> '')::bigint + 1, asked.credential_id,
                        coalesce((running ->> asked.credential_id)::bigint, 0) + 1);
                END IF;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF total_picos IS NULL THEN
        -- All of them were refused.
        RETURN;
    END IF;
    INSERT INTO holds (id, account_id, credential_id, pass_id, model_id, endpoint, price_id,
                       markup_bps, amount_picos, flat_cost_picos, max_tokens, request_id,
                       counted_tokens, token_buckets, is_counted, created_at, expires_at)
    SELECT q.hold_id, q.account_id, q.credential_id, q.pass_id, q.model_id, q.endpoint, q.price_id,
           q.markup_bps, amounts[q.ordinality], q.flat_cost_picos, grants[q.ordinality],
           q.request_id, q.counted_tokens, q.token_buckets,
           q.account_concurrent IS NOT NULL OR q.key_concurrent IS NOT NULL,
           placed_at, placed_at + lifetime
    FROM unnest(requests) WITH ORDINALITY AS q
    WHERE amounts[q.ordinality] IS NOT NULL;
    UPDATE accounts a SET held_picos = a.held_picos + s.amount, overdrawn_picos = 0
    FROM (SELECT q.account_id, sum(amounts[q.ordinality])::bigint AS amount
          FROM unnest(requests) WITH ORDINALITY AS q
          WHERE amounts[q.ordinality] IS NOT NULL GROUP BY q.account_id) s
    WHERE a.id = s.account_id;
    IF used <> '{}' THEN
        INSERT INTO spending AS s (subject, period, starts_on, held_picos)
        SELECT l.subject, l.period, period_start(l.period, placed_at),
               sum(amounts[q.ordinality])::bigint
        FROM unnest(requests) WITH ORDINALITY AS q
        JOIN credentials c ON c.id = q.credential_id
        LEFT JOIN passes x ON x.id = q.pass_id
        CROSS JOIN LATERAL (VALUES (c.id, 'day', c.budget_day_picos),
                                   (c.id, 'week', c.budget_week_picos),
                                   (c.id, 'month', c.budget_month_picos),
                                   (c.id, 'total', c.budget_total_picos),
                                   (x.id, 'total', x.budget_picos)) AS l (subject, period, most)
        WHERE amounts[q.ordinality] IS NOT NULL AND l.most IS NOT NULL
        GROUP BY l.subject, l.period
        ON CONFLICT (subject, period, starts_on)
            DO UPDATE SET held_picos = s.held_picos + excluded.held_picos;
    END IF;
END $$;
