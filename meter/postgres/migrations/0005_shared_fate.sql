-- One account that somebody keeps locked (a long administrative transaction, a change of budgets)
-- makes only its own requests wait.

DROP FUNCTION place_holds(uuid[], text[], text[], text[], text[], text[], bigint[], integer[],
                          bigint[], bigint[], bigint[], bigint[], bigint[], uuid[], integer[],
                          integer[], bigint[], text[], interval);

-- Places a batch of holds: locks the accounts in order, admits what each balance covers, in the
-- order asked, and sets it aside. The credential, its pass, its budgets and the concurrent requests
-- are judged here as well, under the same locks as the money, so that no cache can let a revoked
-- key spend and no two processes can pass a budget together. Without `may_wait`, requests of an
-- account that another transaction keeps locked get the verdict 'busy', and nothing waits for it.
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
    lifetime           interval,
    may_wait           boolean
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
    locked_ids       text[];
BEGIN
    IF may_wait THEN
        PERFORM 1 FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id FOR NO KEY UPDATE;
        locked_ids := account_ids;
    ELSE
        SELECT array_agg(l.id) INTO locked_ids
        FROM (SELECT a.id FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id
              FOR NO KEY UPDATE SKIP LOCKED) l;
    END IF;
    placed_at := clock_timestamp();
    FOR asked IN
        SELECT q.*, a.balance_picos - a.held_picos AS available_picos, a.is_suspended,
               a.id IS NOT NULL AND NOT coalesce(a.id = ANY (locked_ids), false) AS is_busy,
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
        IF asked.is_busy THEN
            verdict := 'busy';
            amount := 0;
            granted_tokens := 0;
            available := 0;
            RETURN NEXT;
            CONTINUE;
        END IF;
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

-- Credentials as lists show them: with their last use, and the end of the secret before the present.
CREATE VIEW listed_credentials AS
SELECT c.*, u.last_used_at,
       (SELECT max(s.ends_at) FROM credential_secrets s
        WHERE s.credential_id = c.id AND s.ends_at > clock_timestamp()) AS previous_ends_at
FROM credentials c
LEFT JOIN credential_uses u ON u.credential_id = c.id;
