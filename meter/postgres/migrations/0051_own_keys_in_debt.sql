-- As before, and an account that owes money may use its own keys where its plan has no fee: such a
-- request sets nothing aside.
--
-- Places a batch of holds. It locks the accounts in order, and only then reads what decides: the
-- credential is judged together with the money, so that no cache lets a revoked key spend and no
-- two processes pass a balance, a budget or a limit together. Without `may_wait`, requests of an
-- account that another transaction keeps locked get the verdict 'busy', and nothing waits for it.
--
-- An ordinary request has neither a budget nor a limit of concurrent requests. Where a balance
-- covers all requests of its account in this batch, and all are ordinary, one statement places
-- them. The others are judged one by one, in the order asked: each gets what is left of balance and
-- budgets. The caller says with `has_ordinary` whether the first is worth trying.
CREATE OR REPLACE FUNCTION place_holds(
    account_ids text[], requests hold_request[], lifetime interval, may_wait boolean,
    has_ordinary boolean
) RETURNS TABLE (
    hold_id uuid, verdict text, amount bigint, granted_tokens bigint, available bigint
) LANGUAGE plpgsql AS $$
DECLARE
    locked_ids      text[];
    with_lots       text[];
    placed_at       timestamptz;
    placed          integer := 0;
    asked           record;
    current_account text;
    left_picos      numeric;
    budget_picos    numeric;
    usable_picos    numeric;
    is_limited      boolean;
    is_full         boolean;
    uses_nothing    boolean;
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
    SELECT array_agg(l.id), array_agg(l.id) FILTER (WHERE l.next_expiry IS NOT NULL),
           clock_timestamp()
    INTO locked_ids, with_lots, placed_at
    FROM (SELECT a.id, a.next_expiry FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id
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
              -- Of a balance with expired credit, less is available.
              AND (a.next_expiry <= placed_at) IS NOT TRUE
            RETURNING a.id
        )
        INSERT INTO holds AS h (
            id, account_id, credential_id, pass_id, model_id, endpoint, price_id, markup_bps,
            amount_picos, flat_cost_picos, max_tokens, request_id, counted_tokens, token_buckets,
            has_lots, created_at, expires_at)
        SELECT q.hold_id, q.account_id, q.credential_id, q.pass_id, q.model_id, q.endpoint,
               q.price_id, q.markup_bps, q.whole_picos::bigint, q.flat_cost_picos, q.max_tokens,
               q.request_id, q.counted_tokens, q.token_buckets,
               coalesce(q.account_id = ANY (with_lots), false), placed_at, placed_at + lifetime
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
        SELECT q.*, a.balance_picos - a.held_picos
                    - CASE WHEN a.next_expiry <= placed_at
                           THEN expired_credit(a.id, a.next_expiry, placed_at) ELSE 0 END
                    AS available_picos,
               a.is_suspended,
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
            -- An own key without a fee uses no credit, so a debt is not in its way.
            uses_nothing := (asked.markup_bps < 0 AND asked.fixed_picos = 0
                             AND asked.per_token_picos = 0) IS TRUE;
            IF tokens < asked.min_tokens OR (NOT uses_nothing AND (
                usable_picos < 0 OR usable_picos < asked.fixed_picos)) THEN
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
                       counted_tokens, token_buckets, is_counted, has_lots, created_at, expires_at)
    SELECT q.hold_id, q.account_id, q.credential_id, q.pass_id, q.model_id, q.endpoint, q.price_id,
           q.markup_bps, amounts[q.ordinality], q.flat_cost_picos, grants[q.ordinality],
           q.request_id, q.counted_tokens, q.token_buckets,
           q.account_concurrent IS NOT NULL OR q.key_concurrent IS NOT NULL,
           coalesce(q.account_id = ANY (with_lots), false), placed_at, placed_at + lifetime
    FROM unnest(requests) WITH ORDINALITY AS q
    WHERE amounts[q.ordinality] IS NOT NULL;
    UPDATE accounts a SET held_picos = a.held_picos + s.amount,
        overdrawn_picos = CASE WHEN a.balance_picos - a.held_picos - s.amount < 0
                               THEN a.overdrawn_picos ELSE 0 END
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
