-- Credit that expires is kept in lots. Credit that never expires has no rows: it is the balance
-- less the lots. So an account without lots costs what it did, and the mark in its row says that it
-- has none.

-- The earliest expiry of the lots of an account that have something left; NULL without any. No hold
-- changes it, and a settlement only when it empties a lot, so updates of accounts stay cheap.
ALTER TABLE accounts ADD COLUMN next_expiry timestamptz;
CREATE INDEX accounts_next_expiry ON accounts (next_expiry, id) WHERE next_expiry IS NOT NULL;

-- Credit that one posting gave and that expires. It was spent, or paid a debt, as far as it is
-- neither left nor expired. Changed under the lock of the account alone.
CREATE TABLE credit_lots (
    id              uuid PRIMARY KEY,
    account_id      text NOT NULL,
    amount_picos    bigint NOT NULL CHECK (amount_picos > 0),
    remaining_picos bigint NOT NULL CHECK (remaining_picos >= 0),
    expired_picos   bigint NOT NULL DEFAULT 0 CHECK (expired_picos >= 0),
    granted_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL CHECK (expires_at > granted_at),
    CONSTRAINT credit_lots_never_overspent CHECK (remaining_picos + expired_picos <= amount_picos)
) WITH (fillfactor = 70);
-- `remaining_picos` is in no index, so spending updates a lot in place. A search begins at the mark
-- of the account, so it never reads the lots of its past.
CREATE INDEX credit_lots_account ON credit_lots (account_id, expires_at, id);

-- The postings by which lots expired.
CREATE TABLE lot_expiries (
    posting_id   uuid PRIMARY KEY,
    lot_id       uuid NOT NULL REFERENCES credit_lots (id),
    amount_picos bigint NOT NULL CHECK (amount_picos > 0)
);
SELECT make_immutable('lot_expiries');

-- Holds that may use credit that expires: what they may still use does not expire under them.
ALTER TABLE holds ADD COLUMN has_lots boolean NOT NULL DEFAULT false;
CREATE INDEX holds_with_lots ON holds (account_id, created_at) WHERE has_lots;

-- Both allow what they allowed and more, so rows of before need no check.
ALTER TABLE posting_rows DROP CONSTRAINT postings_known_template;
ALTER TABLE posting_rows ADD CONSTRAINT postings_known_template CHECK (template IN (
    'settlement', 'excess', 'reversal', 'correction', 'grant', 'adjustment', 'write_off',
    'payment', 'payment_reversal', 'expiry')) NOT VALID;
ALTER TABLE entry_rows DROP CONSTRAINT entries_known_account;
ALTER TABLE entry_rows ADD CONSTRAINT entries_known_account CHECK (ledger_account IN (
    'customer', 'provider', 'revenue', 'grants', 'adjustments', 'losses', 'payments',
    'expired')) NOT VALID;

ALTER TABLE coupons ADD COLUMN credit_days integer CHECK (credit_days BETWEEN 1 AND 3660);

-- The part of each lot that expired by `at` and that no hold may still use. A hold may use credit
-- that expires after it was placed, the earliest first. `since` is the mark of the account, which
-- the caller read in the same snapshot.
CREATE FUNCTION expirable_lots(account text, since timestamptz, at timestamptz)
RETURNS TABLE (lot_id uuid, expirable_picos bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    lot      record;
    held     numeric;
    kept     numeric;
    all_kept numeric := 0;
BEGIN
    FOR lot IN
        SELECT l.id, l.remaining_picos, l.expires_at FROM credit_lots l
        WHERE l.account_id = account AND l.expires_at >= since AND l.expires_at <= at
          AND l.remaining_picos > 0
        ORDER BY l.expires_at, l.id
    LOOP
        SELECT coalesce(sum(h.amount_picos), 0) INTO held FROM holds h
        WHERE h.has_lots AND h.account_id = account AND h.created_at < lot.expires_at;
        kept := least(lot.remaining_picos, greatest(0, held - all_kept));
        all_kept := all_kept + kept;
        IF kept < lot.remaining_picos THEN
            lot_id := lot.id;
            expirable_picos := (lot.remaining_picos - kept)::bigint;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- What of the balance no new hold may use, because it expired and its posting is still to come. It
-- is 0 for accounts without a mark, and for those whose mark is in the future.
CREATE FUNCTION expired_credit(account text, since timestamptz, at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF since IS NULL OR since > at THEN
        RETURN 0;
    END IF;
    RETURN (SELECT coalesce(sum(e.expirable_picos), 0) FROM expirable_lots(account, since, at) e);
END $$;

-- Ends what moved the lots of an account: credit that never expires is not below zero while a lot
-- has something left, so a debt takes from the lots, the earliest first. Then sets the mark. The
-- caller has the account locked and moved its balance.
CREATE FUNCTION close_lots(account text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    owner   record;
    lot     record;
    surplus numeric;
    taken   bigint;
    mark    timestamptz;
BEGIN
    SELECT a.balance_picos, a.next_expiry INTO owner FROM accounts a WHERE a.id = account;
    SELECT sum(l.remaining_picos) - greatest(0, owner.balance_picos) INTO surplus
    FROM credit_lots l WHERE l.account_id = account AND l.expires_at >= owner.next_expiry;
    IF surplus > 0 THEN
        FOR lot IN
            SELECT l.id, l.remaining_picos FROM credit_lots l
            WHERE l.account_id = account AND l.expires_at >= owner.next_expiry
              AND l.remaining_picos > 0
            ORDER BY l.expires_at, l.id
        LOOP
            taken := least(surplus, lot.remaining_picos)::bigint;
            UPDATE credit_lots l SET remaining_picos = l.remaining_picos - taken
            WHERE l.id = lot.id;
            surplus := surplus - taken;
            EXIT WHEN surplus = 0;
        END LOOP;
    END IF;
    SELECT min(l.expires_at) INTO mark FROM credit_lots l
    WHERE l.account_id = account AND l.expires_at >= owner.next_expiry AND l.remaining_picos > 0;
    IF mark IS DISTINCT FROM owner.next_expiry THEN
        UPDATE accounts a SET next_expiry = mark WHERE a.id = account;
    END IF;
END $$;

-- Takes a charge from the lots that had not expired when its hold was placed, the earliest first.
-- The rest is of the credit that never expires. Returns whether close_lots() has to follow.
CREATE FUNCTION take_from_lots(
    account text, since timestamptz, placed timestamptz, charge bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    lot     record;
    taken   bigint;
    wanted  bigint := charge;
    emptied boolean := false;
BEGIN
    FOR lot IN
        SELECT l.id, l.remaining_picos FROM credit_lots l
        WHERE l.account_id = account AND l.expires_at >= since AND l.expires_at > placed
          AND l.remaining_picos > 0
        ORDER BY l.expires_at, l.id
    LOOP
        EXIT WHEN wanted <= 0;
        taken := least(wanted, lot.remaining_picos);
        UPDATE credit_lots l SET remaining_picos = l.remaining_picos - taken WHERE l.id = lot.id;
        wanted := wanted - taken;
        emptied := emptied OR taken = lot.remaining_picos;
    END LOOP;
    RETURN emptied OR wanted > 0;
END $$;

-- Puts back what a request was charged too much: into lots that were granted when its hold was
-- placed and have not expired, as far as they were spent, the latest first. The earliest was spent
-- first, so the latest is what a smaller charge would have left. The rest never expires.
CREATE FUNCTION put_back_in_lots(account text, placed timestamptz, refund bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owner  record;
    lot    record;
    wanted numeric;
    given  bigint;
BEGIN
    SELECT a.balance_picos, a.next_expiry INTO owner FROM accounts a WHERE a.id = account;
    IF owner.next_expiry IS NULL THEN
        -- All lots are spent, and then credit that never expires: that is where it came from.
        RETURN;
    END IF;
    -- A debt is paid first.
    SELECT least(refund, greatest(0, owner.balance_picos) - sum(l.remaining_picos)) INTO wanted
    FROM credit_lots l WHERE l.account_id = account AND l.expires_at >= owner.next_expiry;
    FOR lot IN
        SELECT l.id, l.expires_at, l.amount_picos - l.remaining_picos - l.expired_picos AS spent
        FROM credit_lots l
        WHERE l.account_id = account AND l.expires_at > clock_timestamp()
          AND l.granted_at <= placed AND l.remaining_picos + l.expired_picos < l.amount_picos
        ORDER BY l.expires_at DESC, l.id DESC
    LOOP
        EXIT WHEN wanted <= 0;
        given := least(wanted, lot.spent)::bigint;
        UPDATE credit_lots l SET remaining_picos = l.remaining_picos + given WHERE l.id = lot.id;
        UPDATE accounts a SET next_expiry = least(a.next_expiry, lot.expires_at)
        WHERE a.id = account AND a.next_expiry > lot.expires_at;
        wanted := wanted - given;
    END LOOP;
END $$;

-- Moves the lots of some accounts (`owners`) by the charges of requests: those of other accounts in
-- the arrays are passed over. A negative charge is a refund. The accounts are locked, and have a
-- mark, and their balances are moved.
CREATE FUNCTION settle_lots(
    owners text[], account_ids text[], placed timestamptz[], charges bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one     record;
    closing text[] := '{}';
BEGIN
    FOR one IN
        -- While no lot of an account has expired, its requests may all use the same lots, and one
        -- charge stands for them.
        SELECT c.account, a.next_expiry, min(c.placed) AS placed, sum(c.charge)::bigint AS charge
        FROM unnest(account_ids, placed, charges) AS c (account, placed, charge)
        JOIN accounts a ON a.id = c.account
        WHERE c.account = ANY (owners) AND c.charge > 0
        GROUP BY c.account, a.next_expiry,
                 CASE WHEN a.next_expiry <= clock_timestamp() THEN c.placed END
        ORDER BY c.account, min(c.placed)
    LOOP
        IF take_from_lots(one.account, one.next_expiry, one.placed, one.charge) THEN
            closing := closing || one.account;
        END IF;
    END LOOP;
    FOR one IN SELECT DISTINCT unnest(closing) AS account LOOP
        PERFORM close_lots(one.account);
    END LOOP;
    FOR one IN
        SELECT c.account, c.placed, -sum(c.charge)::bigint AS refund
        FROM unnest(account_ids, placed, charges) AS c (account, placed, charge)
        WHERE c.account = ANY (owners) AND c.charge < 0
        GROUP BY c.account, c.placed ORDER BY c.account, c.placed
    LOOP
        PERFORM put_back_in_lots(one.account, one.placed, one.refund);
    END LOOP;
END $$;

-- Adds the lot of a posting that was booked; what the account owed is paid with it first.
CREATE FUNCTION add_lot(
    posting_id uuid, account text, amount bigint, granted timestamptz, expires timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    left_picos bigint;
BEGIN
    SELECT least(amount, greatest(0, a.balance_picos) - coalesce(
               (SELECT sum(l.remaining_picos) FROM credit_lots l
                WHERE l.account_id = account AND l.expires_at >= a.next_expiry), 0))
    INTO left_picos FROM accounts a WHERE a.id = account;
    INSERT INTO credit_lots (id, account_id, amount_picos, remaining_picos, granted_at, expires_at)
    VALUES (posting_id, account, amount, left_picos, granted, expires);
    IF left_picos > 0 THEN
        UPDATE accounts a SET next_expiry = least(a.next_expiry, expires) WHERE a.id = account;
    END IF;
END $$;

-- Notes that an amount of a lot expired by a posting; the posting and the balance are the caller's.
CREATE FUNCTION expire_lot(lot uuid, amount bigint, posting uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    owner text;
BEGIN
    INSERT INTO lot_expiries (posting_id, lot_id, amount_picos) VALUES (posting, lot, amount);
    UPDATE credit_lots l SET remaining_picos = l.remaining_picos - amount,
                             expired_picos = l.expired_picos + amount
    WHERE l.id = lot RETURNING l.account_id INTO owner;
    PERFORM close_lots(owner);
END $$;

-- As before, and returns the accounts that have lots, NULL where none has: settle_lots() moves
-- them.
DROP FUNCTION move_balances(text[], bigint[], bigint[], bigint[]);
CREATE FUNCTION move_balances(
    account_ids text[], charges bigint[], freed bigint[], excesses bigint[]
) RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    with_lots text[];
BEGIN
    SELECT array_agg(l.id) FILTER (WHERE l.next_expiry IS NOT NULL) INTO with_lots
    FROM (SELECT a.id, a.next_expiry FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id
          FOR NO KEY UPDATE) l;
    UPDATE accounts a SET
        balance_picos = a.balance_picos - m.charge,
        held_picos = a.held_picos - m.freed,
        overdrawn_picos = least(
            a.overdrawn_picos + m.excess,
            greatest(0, (a.held_picos - m.freed) - (a.balance_picos - m.charge)))
    FROM unnest(account_ids, charges, freed, excesses) AS m (account_id, charge, freed, excess)
    WHERE a.id = m.account_id;
    RETURN with_lots;
END $$;

DROP FUNCTION move_money(text[], bigint[], bigint[], bigint[], text[], timestamptz[], bigint[],
                         bigint[]);
CREATE FUNCTION move_money(
    account_ids text[], charges bigint[], freed bigint[], excesses bigint[],
    subjects text[], placed timestamptz[], subject_charges bigint[], subject_freed bigint[]
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    with_lots text[] := move_balances(account_ids, charges, freed, excesses);
BEGIN
    PERFORM move_spending(subjects, placed, subject_charges, subject_freed);
    RETURN with_lots;
END $$;

-- As before, and of credit that expires: what has expired when a hold is placed is not available to
-- it, whether or not its posting was written.
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
                       counted_tokens, token_buckets, is_counted, has_lots, created_at, expires_at)
    SELECT q.hold_id, q.account_id, q.credential_id, q.pass_id, q.model_id, q.endpoint, q.price_id,
           q.markup_bps, amounts[q.ordinality], q.flat_cost_picos, grants[q.ordinality],
           q.request_id, q.counted_tokens, q.token_buckets,
           q.account_concurrent IS NOT NULL OR q.key_concurrent IS NOT NULL,
           coalesce(q.account_id = ANY (with_lots), false), placed_at, placed_at + lifetime
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

-- As before, and takes charges from lots.
--
-- As before; it stores NULL for usual values, and spends lots.
CREATE OR REPLACE FUNCTION settle_holds(
    hold_ids         uuid[],
    costs            bigint[],
    generation_ids   text[],
    starts           timestamptz[],
    prompts          bigint[],
    completions      bigint[],
    cached           bigint[],
    cache_writes     bigint[],
    reasonings       bigint[],
    latencies_ms     integer[],
    first_bytes_ms   integer[],
    status_codes     integer[],
    flags            text[],
    streaming        boolean[],
    sources          text[],
    doubted          text[],
    -- A column for each fact about the holds that were settled.
    OUT settled_ids    uuid[],
    OUT account_ids    text[],
    OUT model_ids      text[],
    OUT endpoints      text[],
    OUT price_ids      bigint[],
    OUT markups_bps    integer[],
    OUT amounts        bigint[],
    OUT max_tokens     bigint[],
    OUT placed         timestamptz[],
    OUT counted_tokens bigint[],
    OUT token_buckets  text[]
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET lock_timeout = '200ms' SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    chain       ledger_chains;
    number      bigint;
    batched     timestamptz;
    signed      bytea;
    charges     bigint[];
    credentials text[];
    passes      text[];
    with_revenue bigint;
    owners      text[];
    with_lots   text[];
    taken       bigint[];
    freed       bigint[];
    nothing     bigint[];
    spenders    text[];
    days        timestamptz[];
    spent       bigint[];
    spent_freed bigint[];
BEGIN
    chain := take_chain();
    number := nextval('ledger_batch_numbers');
    batched := clock_timestamp();
    WITH gone AS (
        DELETE FROM holds h
        -- Functions of sets in FROM would store each column apart first.
        USING (SELECT unnest(hold_ids) AS id, unnest(costs) AS cost,
                      unnest(generation_ids) AS generation, unnest(starts) AS started,
                      unnest(prompts) AS prompt, unnest(completions) AS completion,
                      unnest(cached) AS cached, unnest(cache_writes) AS cache_write,
                      unnest(reasonings) AS reasoning, unnest(latencies_ms) AS latency,
                      unnest(first_bytes_ms) AS first_byte, unnest(status_codes) AS status,
                      unnest(flags) AS flags, unnest(streaming) AS is_streaming,
                      unnest(sources) AS source) t
        WHERE h.id = t.id AND t.cost > 0
          AND div(t.cost::numeric * (10000 + h.markup_bps) + 9999, 10000) <= h.amount_picos
          AND h.account_id <> ALL (doubted)
        RETURNING h.*, t.cost, t.generation, t.started, t.prompt, t.completion,
                  t.cached, t.cache_write, t.reasoning, t.latency, t.first_byte, t.status,
                  t.flags, t.is_streaming, t.source,
                  div(t.cost::numeric * (10000 + h.markup_bps) + 9999, 10000)::bigint AS charge
    ), booked AS (
        INSERT INTO settlements (
            id, placed_at, batch, recorded_at, started_at, request_id, price_id, held_picos,
            flat_cost_picos, max_tokens, customer_picos, provider_picos, revenue_picos,
            prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
            markup_bps, latency_ms, time_to_first_byte_ms, status_code, is_streaming, account_id,
            credential_id, pass_id, model_id, endpoint, generation_id, response_flags,
            price_source, source)
        SELECT g.id, g.created_at, number, batched, g.started, g.request_id, g.price_id,
               g.amount_picos, nullif(g.flat_cost_picos, 0), g.max_tokens, -g.charge, g.cost,
               g.charge - g.cost, g.prompt, g.completion, nullif(g.cached, 0),
               nullif(g.cache_write, 0), nullif(g.reasoning, 0), g.markup_bps, g.latency,
               g.first_byte, nullif(g.status, 200), g.is_streaming, g.account_id,
               g.credential_id, g.pass_id, g.model_id, nullif(g.endpoint, 'chat_completions'),
               g.generation, nullif(g.flags, ''), NULL, nullif(g.source, 'stream')
        FROM gone g
        RETURNING settlements.id, settlement_record(settlements) AS record
    )
    SELECT array_agg(g.id), array_agg(g.account_id), array_agg(g.credential_id),
           array_agg(g.pass_id), array_agg(g.model_id), array_agg(g.endpoint),
           array_agg(g.price_id), array_agg(g.markup_bps), array_agg(g.amount_picos),
           array_agg(g.max_tokens), array_agg(g.created_at), array_agg(g.counted_tokens),
           array_agg(array_to_string(g.token_buckets, ' ')), array_agg(g.charge),
           count(*) FILTER (WHERE g.charge > g.cost),
           (SELECT string_agg(b.record, '' ORDER BY b.id) FROM booked b)
    INTO settled_ids, account_ids, credentials, passes, model_ids, endpoints, price_ids,
         markups_bps, amounts, max_tokens, placed, counted_tokens, token_buckets, charges,
         with_revenue, signed
    FROM gone g;
    IF settled_ids IS NULL THEN
        settled_ids := '{}';
        RETURN;
    END IF;
    SELECT array_agg(m.account), array_agg(m.charge), array_agg(m.amount), array_agg(0::bigint)
    INTO owners, taken, freed, nothing
    FROM (SELECT u.account, sum(u.charge)::bigint AS charge, sum(u.amount)::bigint AS amount
          FROM unnest(account_ids, charges, amounts) AS u (account, charge, amount)
          GROUP BY u.account) m;
    -- Periods of budgets begin with a day of UTC, so the day of a hold says which it counts in.
    SELECT array_agg(m.spender), array_agg(m.day AT TIME ZONE 'UTC'), array_agg(m.charge),
           array_agg(m.amount)
    INTO spenders, days, spent, spent_freed
    FROM (SELECT s.spender, date_trunc('day', u.placed AT TIME ZONE 'UTC') AS day,
                 sum(u.charge)::bigint AS charge, sum(u.amount)::bigint AS amount
          FROM unnest(credentials, passes, placed, charges, amounts)
              AS u (credential, pass, placed, charge, amount)
          CROSS JOIN LATERAL (VALUES (u.credential), (u.pass)) AS s (spender)
          WHERE s.spender IS NOT NULL
          GROUP BY 1, 2) m;
    with_lots := move_money(owners, taken, freed, nothing, spenders, days, spent, spent_freed);
    IF with_lots IS NOT NULL THEN
        PERFORM settle_lots(with_lots, account_ids, placed, charges);
    END IF;
    PERFORM seal_batch(chain, number, batched, signed, cardinality(settled_ids),
                       2 * cardinality(settled_ids) + with_revenue);
END $$;
