-- The books: accounts and their terms, credentials, prices, holds, usage, ledger.
-- Money is BIGINT pico-dollars everywhere. The service role is granted its rights at the end.

CREATE TABLE plans (
    id                  text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    name                text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    markup_bps          integer NOT NULL CHECK (markup_bps BETWEEN 0 AND 1000000),
    requests_per_minute integer CHECK (requests_per_minute > 0)
);

INSERT INTO plans (id, name, markup_bps, requests_per_minute)
VALUES ('standard', 'Standard', 0, 6000), ('unlimited', 'Unlimited', 0, NULL);

CREATE TABLE accounts (
    id              text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$'),
    email           text NOT NULL CHECK (length(email) BETWEEN 3 AND 320),
    name            text CHECK (length(name) BETWEEN 1 AND 200),
    plan_id         text NOT NULL DEFAULT 'standard' REFERENCES plans (id),
    markup_bps      integer CHECK (markup_bps BETWEEN 0 AND 1000000),
    is_suspended    boolean NOT NULL DEFAULT false,
    balance_picos   bigint NOT NULL DEFAULT 0,
    held_picos      bigint NOT NULL DEFAULT 0 CHECK (held_picos >= 0),
    -- How far actual charges above their holds have taken the account below zero (rule R5).
    overdrawn_picos bigint NOT NULL DEFAULT 0 CHECK (overdrawn_picos >= 0),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT accounts_never_overspent
        CHECK (balance_picos - held_picos + overdrawn_picos >= 0)
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX accounts_email ON accounts (lower(email));
CREATE INDEX accounts_created ON accounts (created_at, id);

CREATE TABLE credentials (
    id             text PRIMARY KEY CHECK (id ~ '^[a-z2-7]{16}$'),
    account_id     text NOT NULL REFERENCES accounts (id),
    name           text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    digest         bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    prefix         text NOT NULL,
    allowed_models text[],
    expires_at     timestamptz,
    revoked_at     timestamptz,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX credentials_account ON credentials (account_id, created_at, id);

-- A digest of each operator token that is accepted; the tokens themselves are nowhere.
CREATE TABLE operators (
    name       text PRIMARY KEY,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Provider keys, sealed: nonce and AES-256-GCM ciphertext, bound to provider, owner and version.
CREATE TABLE provider_keys (
    provider    text NOT NULL,
    owner       text NOT NULL,
    key_version integer NOT NULL CHECK (key_version > 0),
    sealed      bytea NOT NULL,
    hint        text NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (provider, owner)
);

CREATE TABLE models (
    id                    text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    name                  text NOT NULL,
    context_length        bigint NOT NULL CHECK (context_length > 0),
    max_completion_tokens bigint NOT NULL CHECK (max_completion_tokens > 0),
    listing               jsonb NOT NULL,
    is_listed             boolean NOT NULL DEFAULT true,
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Pico-dollars per unit. A price is never changed: a new one takes effect from its instant.
CREATE TABLE prices (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id          text NOT NULL REFERENCES models (id),
    effective_from    timestamptz NOT NULL DEFAULT clock_timestamp(),
    prompt_picos      bigint NOT NULL CHECK (prompt_picos >= 0),
    completion_picos  bigint NOT NULL CHECK (completion_picos >= 0),
    request_picos     bigint NOT NULL CHECK (request_picos >= 0),
    image_picos       bigint NOT NULL CHECK (image_picos >= 0),
    web_search_picos  bigint NOT NULL CHECK (web_search_picos >= 0),
    reasoning_picos   bigint NOT NULL CHECK (reasoning_picos >= 0),
    cache_read_picos  bigint CHECK (cache_read_picos >= 0),
    cache_write_picos bigint CHECK (cache_write_picos >= 0),
    UNIQUE (model_id, effective_from)
);

CREATE TABLE catalogue_syncs (
    provider  text PRIMARY KEY,
    synced_at timestamptz NOT NULL,
    models    integer NOT NULL
);

-- A hold is placed before a request reaches a provider, and ends exactly once.
CREATE TABLE holds (
    id                uuid PRIMARY KEY,
    -- No foreign key: place_holds() holds the account's row locked, and looking it up again for
    -- each hold took a quarter of the time of placing it.
    account_id        text NOT NULL,
    credential_id     text NOT NULL,
    model_id          text NOT NULL,
    endpoint          text NOT NULL,
    price_id          bigint NOT NULL,
    markup_bps        integer NOT NULL,
    amount_picos      bigint NOT NULL CHECK (amount_picos >= 0),
    flat_cost_picos   bigint NOT NULL CHECK (flat_cost_picos >= 0),
    max_tokens        bigint NOT NULL,
    state             text NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'unknown', 'settled', 'released', 'expired')),
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at        timestamptz NOT NULL,
    ended_at          timestamptz,
    -- What is known of a request whose usage is unknown: where to ask, and why it must be asked.
    unknown_reason    text,
    generation_id     text,
    status_code       integer,
    response_flags    text,
    CHECK ((ended_at IS NULL) = (state IN ('open', 'unknown')))
) WITH (fillfactor = 70);

CREATE INDEX holds_live ON holds (account_id, created_at) WHERE ended_at IS NULL;

-- One immutable measurement of a finished request; its primary key settles a hold only once.
CREATE TABLE usage_records (
    hold_id               uuid PRIMARY KEY,
    account_id            text NOT NULL,
    credential_id         text NOT NULL,
    model_id              text NOT NULL,
    endpoint              text NOT NULL,
    generation_id         text,
    started_at            timestamptz NOT NULL,
    recorded_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    prompt_tokens         bigint NOT NULL,
    completion_tokens     bigint NOT NULL,
    cached_tokens         bigint NOT NULL,
    cache_write_tokens    bigint NOT NULL,
    reasoning_tokens      bigint NOT NULL,
    provider_cost_picos   bigint NOT NULL CHECK (provider_cost_picos >= 0),
    charge_picos          bigint NOT NULL CHECK (charge_picos >= provider_cost_picos),
    excess_picos          bigint NOT NULL CHECK (excess_picos >= 0),
    markup_bps            integer NOT NULL,
    price_id              bigint NOT NULL,
    price_source          text NOT NULL CHECK (price_source IN ('provider', 'catalogue')),
    latency_ms            integer NOT NULL,
    time_to_first_byte_ms integer,
    status_code           integer NOT NULL,
    response_flags        text NOT NULL,
    is_streaming          boolean NOT NULL,
    source                text NOT NULL CHECK (source IN ('stream', 'file', 'lookup'))
);

CREATE INDEX usage_records_account ON usage_records (account_id, started_at, hold_id);

-- The second arrival of an ending that says something else: kept and alarmed, never applied.
CREATE TABLE settlement_conflicts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_id     uuid NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('hold_not_found', 'other_amount', 'after_ending')),
    arrived     jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE postings (
    id          uuid PRIMARY KEY,
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    template    text NOT NULL CHECK (template IN ('settlement', 'excess', 'grant', 'adjustment')),
    account_id  text NOT NULL,
    hold_id     uuid,
    reason      text CHECK (length(reason) BETWEEN 1 AND 500),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX postings_account ON postings (account_id, seq);

CREATE TABLE entries (
    posting_id     uuid NOT NULL,
    line           smallint NOT NULL,
    ledger_account text NOT NULL
        CHECK (ledger_account IN ('customer', 'provider', 'revenue', 'grants', 'adjustments')),
    account_id     text NOT NULL,
    amount_picos   bigint NOT NULL CHECK (amount_picos <> 0),
    PRIMARY KEY (posting_id, line)
);

-- All entries of a posting come in one statement, and together they sum to zero.
CREATE FUNCTION entries_must_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced uuid;
BEGIN
    SELECT posting_id INTO unbalanced FROM inserted
    GROUP BY posting_id HAVING sum(amount_picos) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'posting % does not sum to zero', unbalanced
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER entries_balance AFTER INSERT ON entries
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION entries_must_balance();

CREATE FUNCTION history_is_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER postings_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION history_is_immutable();
CREATE TRIGGER entries_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION history_is_immutable();
CREATE TRIGGER usage_records_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_records
    FOR EACH STATEMENT EXECUTE FUNCTION history_is_immutable();

-- Places a batch of holds: locks the accounts in order, admits what each balance covers, in the
-- order asked, and sets it aside. The credential is judged here as well, under the same snapshot
-- as the money, so that no cache can let a revoked key spend.
CREATE FUNCTION place_holds(
    hold_ids         uuid[],
    account_ids      text[],
    credential_ids   text[],
    model_ids        text[],
    endpoints        text[],
    price_ids        bigint[],
    markups_bps      integer[],
    fixed_picos      bigint[],
    per_token_picos  bigint[],
    min_tokens       bigint[],
    max_tokens       bigint[],
    flat_cost_picos  bigint[],
    lifetime         interval
) RETURNS TABLE (
    hold_id uuid, verdict text, amount bigint, granted_tokens bigint, available bigint
) LANGUAGE plpgsql AS $$
DECLARE
    asked            record;
    current_account  text;
    left_picos       numeric;
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
               coalesce(c.account_id = q.account_id AND c.revoked_at IS NULL
                        AND (c.expires_at IS NULL OR c.expires_at > placed_at), false) AS is_live
        FROM unnest(hold_ids, account_ids, credential_ids, fixed_picos, per_token_picos,
                    min_tokens, max_tokens)
             WITH ORDINALITY AS q (id, account_id, credential_id, fixed, per_token,
                                   fewest, most, position)
        LEFT JOIN accounts a ON a.id = q.account_id
        LEFT JOIN credentials c ON c.id = q.credential_id
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
        IF NOT asked.is_live THEN
            verdict := 'credential_ended';
        ELSIF asked.is_suspended THEN
            verdict := 'account_suspended';
        ELSE
            tokens := asked.most;
            IF asked.per_token > 0 THEN
                tokens := least(tokens, floor((left_picos - asked.fixed) / asked.per_token));
            END IF;
            IF left_picos < 0 OR left_picos < asked.fixed OR tokens < asked.fewest THEN
                verdict := 'insufficient';
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
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF cardinality(held_ids) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO holds (id, account_id, credential_id, model_id, endpoint, price_id, markup_bps,
                       amount_picos, flat_cost_picos, max_tokens, created_at, expires_at)
    SELECT h.id, account_ids[h.i], credential_ids[h.i], model_ids[h.i], endpoints[h.i],
           price_ids[h.i], markups_bps[h.i], h.amount, flat_cost_picos[h.i], h.tokens,
           placed_at, placed_at + lifetime
    FROM unnest(held_ids, held_positions, held_amounts, held_tokens) AS h (id, i, amount, tokens);
    UPDATE accounts a SET held_picos = a.held_picos + s.amount, overdrawn_picos = 0
    FROM (SELECT account_ids[h.i] AS account_id, sum(h.amount)::bigint AS amount
          FROM unnest(held_positions, held_amounts) AS h (i, amount) GROUP BY 1) s
    WHERE a.id = s.account_id;
END $$;

-- Applies charges and frees what was held, with the accounts locked in order. It comes last in a
-- transaction, so that accounts stay locked for a moment only. An account goes below zero only by
-- measured excess.
CREATE FUNCTION move_balances(
    account_ids text[], charges bigint[], freed bigint[], excesses bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id FOR NO KEY UPDATE;
    UPDATE accounts a SET
        balance_picos = a.balance_picos - m.charge,
        held_picos = a.held_picos - m.freed,
        overdrawn_picos = least(
            a.overdrawn_picos + m.excess,
            greatest(0, (a.held_picos - m.freed) - (a.balance_picos - m.charge)))
    FROM unnest(account_ids, charges, freed, excesses) AS m (account_id, charge, freed, excess)
    WHERE a.id = m.account_id;
END $$;

-- Ends holds without a charge; those that ended already, or do not exist, change nothing.
CREATE FUNCTION release_holds(hold_ids uuid[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    account_ids text[];
    amounts     bigint[];
    released    bigint;
BEGIN
    PERFORM 1 FROM holds h WHERE h.id = ANY (hold_ids) ORDER BY h.id FOR NO KEY UPDATE;
    WITH ended AS (
        UPDATE holds SET state = 'released', ended_at = clock_timestamp()
        WHERE id = ANY (hold_ids) AND ended_at IS NULL
        RETURNING account_id, amount_picos
    ), sums AS (
        SELECT account_id, sum(amount_picos)::bigint AS amount, count(*) AS holds
        FROM ended GROUP BY account_id
    )
    SELECT array_agg(account_id), array_agg(amount), coalesce(sum(holds), 0)
    INTO account_ids, amounts, released FROM sums;
    IF released > 0 THEN
        PERFORM move_balances(account_ids, array_fill(0::bigint, ARRAY[cardinality(amounts)]),
                              amounts, array_fill(0::bigint, ARRAY[cardinality(amounts)]));
    END IF;
    RETURN released;
END $$;
