-- Live holds apart from ended ones, history by month, a ledger chained by hash, a queue of
-- look-ups, and where the readers of the access-log file stand.

-- History: parents are partitioned by month; a default partition means that nothing is ever
-- refused for want of a month.

CREATE TABLE ended_holds (
    id              uuid NOT NULL,
    -- When the hold was placed. It never changes, so the key of a hold stays unique in history.
    placed_at       timestamptz NOT NULL,
    account_id      text NOT NULL,
    credential_id   text NOT NULL,
    model_id        text NOT NULL,
    endpoint        text NOT NULL,
    price_id        bigint NOT NULL,
    markup_bps      integer NOT NULL,
    amount_picos    bigint NOT NULL,
    flat_cost_picos bigint NOT NULL,
    max_tokens      bigint NOT NULL,
    request_id      uuid,
    state           text NOT NULL CHECK (state IN ('settled', 'released', 'expired')),
    -- Why it ended so: see HoldEnding in meter/holds.py.
    reason          text NOT NULL,
    ended_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, placed_at)
) PARTITION BY RANGE (placed_at);

ALTER TABLE usage_records RENAME TO usage_records_before;
ALTER TABLE usage_records_before RENAME CONSTRAINT usage_records_pkey TO usage_records_before_pkey;
ALTER INDEX usage_records_account RENAME TO usage_records_before_account;

-- Measurements of finished requests. Revision 0 ends a hold, or comes late after it ended; later
-- revisions correct it and carry differences, so that sums over all rows are the truth.
CREATE TABLE usage_records (
    hold_id               uuid NOT NULL,
    placed_at             timestamptz NOT NULL,
    revision              smallint NOT NULL DEFAULT 0 CHECK (revision >= 0),
    kind                  text NOT NULL DEFAULT 'settlement'
        CHECK (kind IN ('settlement', 'late', 'provisional', 'correction')),
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
    provider_cost_picos   bigint NOT NULL,
    charge_picos          bigint NOT NULL,
    excess_picos          bigint NOT NULL CHECK (excess_picos >= 0),
    markup_bps            integer NOT NULL,
    price_id              bigint NOT NULL,
    price_source          text NOT NULL
        CHECK (price_source IN ('provider', 'catalogue', 'estimate')),
    latency_ms            integer NOT NULL,
    time_to_first_byte_ms integer,
    status_code           integer NOT NULL,
    response_flags        text NOT NULL,
    is_streaming          boolean NOT NULL,
    source                text NOT NULL CHECK (source IN ('stream', 'file', 'lookup', 'policy')),
    PRIMARY KEY (hold_id, placed_at, revision),
    CHECK ((revision > 0) = (kind = 'correction')),
    CHECK (revision > 0 OR (provider_cost_picos >= 0 AND charge_picos >= provider_cost_picos))
) PARTITION BY RANGE (placed_at);

CREATE INDEX usage_records_account ON usage_records (account_id, started_at, hold_id);

ALTER TABLE postings RENAME TO postings_before;
ALTER TABLE postings_before RENAME CONSTRAINT postings_pkey TO postings_before_pkey;
ALTER INDEX postings_account RENAME TO postings_before_account;
CREATE SEQUENCE postings_position;
SELECT setval('postings_position', coalesce(max(seq), 0) + 1, false) FROM postings_before;

-- `booked_at` is the time of what the posting is about and part of its key: the same event posted
-- again has the same, and meets the posting that is there.
CREATE TABLE postings (
    id          uuid NOT NULL,
    booked_at   timestamptz NOT NULL,
    seq         bigint NOT NULL DEFAULT nextval('postings_position'),
    batch       bigint NOT NULL,
    template    text NOT NULL CHECK (template IN (
        'settlement', 'excess', 'reversal', 'correction', 'grant', 'adjustment')),
    account_id  text NOT NULL,
    hold_id     uuid,
    reason      text CHECK (length(reason) BETWEEN 1 AND 500),
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (id, booked_at)
) PARTITION BY RANGE (booked_at);

CREATE INDEX postings_account ON postings (account_id, seq);

ALTER TABLE entries RENAME TO entries_before;
ALTER TABLE entries_before RENAME CONSTRAINT entries_pkey TO entries_before_pkey;

CREATE TABLE entries (
    posting_id     uuid NOT NULL,
    booked_at      timestamptz NOT NULL,
    line           smallint NOT NULL,
    ledger_account text NOT NULL
        CHECK (ledger_account IN ('customer', 'provider', 'revenue', 'grants', 'adjustments')),
    account_id     text NOT NULL,
    amount_picos   bigint NOT NULL CHECK (amount_picos <> 0),
    PRIMARY KEY (posting_id, booked_at, line)
) PARTITION BY RANGE (booked_at);

CREATE TRIGGER entries_balance AFTER INSERT ON entries
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION entries_must_balance();

-- Every write to the ledger is a batch, and each batch signs the one before: an entry that is
-- edited, added or taken away in the database breaks the chain from there on.
CREATE TABLE ledger_batches (
    number        bigint NOT NULL,
    sealed_at     timestamptz NOT NULL,
    previous_hash bytea NOT NULL,
    hash          bytea NOT NULL,
    postings      integer NOT NULL,
    entries       integer NOT NULL,
    PRIMARY KEY (number, sealed_at)
) PARTITION BY RANGE (sealed_at);

-- The youngest batch. Whoever appends holds this row locked until the commit.
CREATE TABLE ledger_head (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    number  bigint NOT NULL,
    hash    bytea NOT NULL
) WITH (fillfactor = 10);

INSERT INTO ledger_head (number, hash) VALUES (0, sha256('tollkeeper ledger'));

-- Administrators' postings by their key, for good: the same one asked for again, however much
-- later, is found here and gets the same answer.
CREATE TABLE credit_postings (
    posting_id          uuid PRIMARY KEY,
    booked_at           timestamptz NOT NULL,
    template            text NOT NULL,
    reason              text NOT NULL,
    amount_picos        bigint NOT NULL,
    balance_after_picos bigint NOT NULL
);

-- Months of usage or ledger that were dropped; what they added up to is in the sealed totals.
CREATE TABLE dropped_months (
    kind       text NOT NULL CHECK (kind IN ('usage', 'ledger')),
    month      date NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The youngest batch of the ledger with a posting of the month.
    last_batch bigint NOT NULL,
    PRIMARY KEY (kind, month)
);

CREATE TABLE sealed_entries (
    month          date NOT NULL,
    account_id     text NOT NULL,
    template       text NOT NULL,
    ledger_account text NOT NULL,
    amount_picos   numeric NOT NULL,
    -- The negative entries alone, as a positive amount.
    taken_picos    numeric NOT NULL,
    postings       bigint NOT NULL,
    entries        bigint NOT NULL,
    PRIMARY KEY (month, account_id, template, ledger_account)
);

CREATE TABLE sealed_usage (
    month               date NOT NULL,
    account_id          text NOT NULL,
    requests            bigint NOT NULL,
    prompt_tokens       numeric NOT NULL,
    completion_tokens   numeric NOT NULL,
    provider_cost_picos numeric NOT NULL,
    charge_picos        numeric NOT NULL,
    excess_picos        numeric NOT NULL,
    PRIMARY KEY (month, account_id)
);

CREATE FUNCTION make_immutable(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION history_is_immutable()', relation);
END $$;

SELECT make_immutable(name::regclass)
FROM unnest(ARRAY['usage_records', 'postings', 'entries', 'ledger_batches', 'ended_holds',
                  'sealed_entries', 'sealed_usage', 'dropped_months', 'credit_postings']) AS name;

-- The parents whose partitions are made and dropped together, and what they are partitioned by.
CREATE FUNCTION history_tables() RETURNS TABLE (parent text, kind text, instant text)
LANGUAGE sql IMMUTABLE AS $$
    VALUES ('ended_holds', 'usage', 'placed_at'), ('usage_records', 'usage', 'placed_at'),
           ('postings', 'ledger', 'booked_at'), ('entries', 'ledger', 'booked_at'),
           ('ledger_batches', 'chain', 'sealed_at')
$$;

-- Makes the partitions of a month. What came while it had none is in the default partition, and
-- moves, as it is: without that no such month could ever be made.
CREATE FUNCTION make_month(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    opens     timestamptz := month::timestamp AT TIME ZONE 'UTC';
    closes    timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
    history   record;
    partition text;
    fallback  text;
BEGIN
    FOR history IN SELECT * FROM history_tables() LOOP
        partition := format('%s_%s', history.parent, to_char(month, 'YYYY_MM'));
        fallback := history.parent || '_default';
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, history.parent);
        IF to_regclass(fallback) IS NOT NULL THEN
            EXECUTE format('LOCK TABLE ONLY %I, %I IN ACCESS EXCLUSIVE MODE',
                           history.parent, fallback);
            EXECUTE format('ALTER TABLE %I DISABLE TRIGGER immutable', fallback);
            EXECUTE format('WITH moved AS (DELETE FROM %1$I WHERE %2$I >= %3$L AND %2$I < %4$L'
                           ' RETURNING *) INSERT INTO %5$I SELECT * FROM moved',
                           fallback, history.instant, opens, closes, partition);
            EXECUTE format('ALTER TABLE %I ENABLE TRIGGER immutable', fallback);
        END IF;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       history.parent, partition, opens, closes);
        PERFORM make_immutable(partition::regclass);
    END LOOP;
END $$;

-- Makes the partitions of the months to come; returns how many months were looked after. Called
-- by the service, which owns no table, hence with the owner's rights.
CREATE FUNCTION prepare_months(months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this_month date := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
    PERFORM pg_advisory_xact_lock(7261994310482115);
    FOR ahead IN 0..least(greatest(months_ahead, 0), 24) LOOP
        PERFORM make_month((this_month + make_interval(months => ahead))::date);
    END LOOP;
    RETURN least(greatest(months_ahead, 0), 24) + 1;
END $$;

DO $$
DECLARE
    month  date;
    parent text;
BEGIN
    FOR month IN
        SELECT DISTINCT date_trunc('month', at AT TIME ZONE 'UTC')::date
        FROM (SELECT created_at AS at FROM holds
              UNION ALL SELECT recorded_at FROM postings_before) known
    LOOP
        PERFORM make_month(month);
    END LOOP;
    PERFORM prepare_months(3);
    FOR parent IN SELECT h.parent FROM history_tables() h LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', parent || '_default', parent);
        PERFORM make_immutable((parent || '_default')::regclass);
    END LOOP;
END $$;

-- One entry as the chain signs it. Instants count as microseconds since 1970; the reason is last,
-- with its length before it, so that no text can pass for another.
CREATE FUNCTION ledger_line(
    posting_id uuid, booked_at timestamptz, template text, account_id text, hold_id uuid,
    recorded_at timestamptz, reason text, line smallint, ledger_account text,
    entry_account_id text, amount_picos bigint
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT posting_id::text || '|' || (extract(epoch FROM booked_at) * 1000000)::bigint::text
        || '|' || template || '|' || account_id || '|' || coalesce(hold_id::text, '')
        || '|' || (extract(epoch FROM recorded_at) * 1000000)::bigint::text
        || '|' || line::text || '|' || ledger_account || '|' || entry_account_id
        || '|' || amount_picos::text
        || '|' || coalesce(length(reason)::text || ':' || reason, '-') || E'\n'
$$;

-- Appends postings with their entries as the next batch of the chain; returns its number.
-- `entry_postings` gives for each entry the position of its posting, from 1.
CREATE FUNCTION append_postings(
    posting_ids     uuid[],
    bookings        timestamptz[],
    templates       text[],
    account_ids     text[],
    hold_ids        uuid[],
    reasons         text[],
    entry_postings  integer[],
    lines           smallint[],
    ledger_accounts text[],
    amounts         bigint[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    head    ledger_head;
    batched timestamptz;
    signed  text;
    digest  bytea;
BEGIN
    SELECT * INTO head FROM ledger_head FOR NO KEY UPDATE;
    batched := clock_timestamp();
    INSERT INTO postings (id, booked_at, batch, template, account_id, hold_id, reason, recorded_at)
    SELECT p.id, coalesce(p.booked_at, batched), head.number + 1, p.template, p.account_id,
           p.hold_id, p.reason, batched
    FROM unnest(posting_ids, bookings, templates, account_ids, hold_ids, reasons)
        AS p (id, booked_at, template, account_id, hold_id, reason);
    INSERT INTO entries (posting_id, booked_at, line, ledger_account, account_id, amount_picos)
    SELECT posting_ids[e.posting], coalesce(bookings[e.posting], batched), e.line,
           e.ledger_account, account_ids[e.posting], e.amount
    FROM unnest(entry_postings, lines, ledger_accounts, amounts)
        AS e (posting, line, ledger_account, amount);
    SELECT string_agg(
        ledger_line(posting_ids[e.posting], coalesce(bookings[e.posting], batched),
                    templates[e.posting], account_ids[e.posting], hold_ids[e.posting], batched,
                    reasons[e.posting], e.line, e.ledger_account, account_ids[e.posting],
                    e.amount),
        '' ORDER BY posting_ids[e.posting], e.line)
    INTO signed
    FROM unnest(entry_postings, lines, ledger_accounts, amounts)
        AS e (posting, line, ledger_account, amount);
    digest := sha256(head.hash || convert_to(signed, 'UTF8'));
    INSERT INTO ledger_batches (number, sealed_at, previous_hash, hash, postings, entries)
    VALUES (head.number + 1, batched, head.hash, digest, cardinality(posting_ids),
            cardinality(entry_postings));
    UPDATE ledger_head SET number = head.number + 1, hash = digest;
    RETURN head.number + 1;
END $$;

-- What there is becomes the first batch of the chain.
INSERT INTO credit_postings (posting_id, booked_at, template, reason, amount_picos,
                             balance_after_picos)
SELECT id, recorded_at, template, coalesce(reason, ''), amount_picos, balance_picos
FROM (SELECT p.id, p.template, p.reason, p.recorded_at, moved.amount_picos,
             sum(moved.amount_picos) OVER (PARTITION BY p.account_id ORDER BY p.seq) AS balance_picos
      FROM postings_before p
      CROSS JOIN LATERAL (SELECT coalesce(sum(e.amount_picos), 0) AS amount_picos
                          FROM entries_before e
                          WHERE e.posting_id = p.id AND e.ledger_account = 'customer') moved) known
WHERE template IN ('grant', 'adjustment');
INSERT INTO postings (id, booked_at, seq, batch, template, account_id, hold_id, reason, recorded_at)
SELECT p.id, coalesce(h.created_at, p.recorded_at), p.seq, 1, p.template, p.account_id, p.hold_id,
       p.reason, p.recorded_at
FROM postings_before p LEFT JOIN holds h ON h.id = p.hold_id;
INSERT INTO entries (posting_id, booked_at, line, ledger_account, account_id, amount_picos)
SELECT e.posting_id, p.booked_at, e.line, e.ledger_account, e.account_id, e.amount_picos
FROM entries_before e JOIN postings p ON p.id = e.posting_id;
WITH signed AS (
    SELECT string_agg(
               ledger_line(p.id, p.booked_at, p.template, p.account_id, p.hold_id, p.recorded_at,
                           p.reason, e.line, e.ledger_account, e.account_id, e.amount_picos),
               '' ORDER BY p.id, e.line) AS lines,
           count(DISTINCT p.id) AS postings, count(*) AS entries
    FROM postings p JOIN entries e ON e.posting_id = p.id AND e.booked_at = p.booked_at
), batch AS (
    INSERT INTO ledger_batches (number, sealed_at, previous_hash, hash, postings, entries)
    SELECT 1, clock_timestamp(), head.hash,
           sha256(head.hash || convert_to(signed.lines, 'UTF8')), signed.postings, signed.entries
    FROM signed, ledger_head head WHERE signed.entries > 0
    RETURNING number, hash
)
UPDATE ledger_head SET number = batch.number, hash = batch.hash FROM batch;
INSERT INTO usage_records (
    hold_id, placed_at, account_id, credential_id, model_id, endpoint, generation_id, started_at,
    recorded_at, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens,
    reasoning_tokens, provider_cost_picos, charge_picos, excess_picos, markup_bps, price_id,
    price_source, latency_ms, time_to_first_byte_ms, status_code, response_flags, is_streaming,
    source)
SELECT u.hold_id, h.created_at, u.account_id, u.credential_id, u.model_id, u.endpoint,
       u.generation_id, u.started_at, u.recorded_at, u.prompt_tokens, u.completion_tokens,
       u.cached_tokens, u.cache_write_tokens, u.reasoning_tokens, u.provider_cost_picos,
       u.charge_picos, u.excess_picos, u.markup_bps, u.price_id, u.price_source, u.latency_ms,
       u.time_to_first_byte_ms, u.status_code, u.response_flags, u.is_streaming, u.source
FROM usage_records_before u JOIN holds h ON h.id = u.hold_id;
DROP TABLE usage_records_before, entries_before, postings_before;

ALTER TABLE holds ADD COLUMN request_id uuid;
INSERT INTO ended_holds (id, placed_at, account_id, credential_id, model_id, endpoint, price_id,
                         markup_bps, amount_picos, flat_cost_picos, max_tokens, state, reason,
                         ended_at)
SELECT id, created_at, account_id, credential_id, model_id, endpoint, price_id, markup_bps,
       amount_picos, flat_cost_picos, max_tokens, state,
       CASE state WHEN 'settled' THEN 'settled' ELSE 'never_reached' END, ended_at
FROM holds WHERE ended_at IS NOT NULL;
DELETE FROM holds WHERE ended_at IS NOT NULL;
-- Only live holds stay here: what the request path touches is as small as what is going on.
DROP INDEX holds_live;
ALTER TABLE holds DROP COLUMN ended_at;
ALTER TABLE holds DROP CONSTRAINT holds_state_check;
ALTER TABLE holds ADD CONSTRAINT holds_state_check CHECK (state IN ('open', 'unknown'));
ALTER TABLE holds SET (
    fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 100000);
DROP FUNCTION release_holds(uuid[]);
DROP FUNCTION place_holds(uuid[], text[], text[], text[], text[], bigint[], integer[], bigint[],
                          bigint[], bigint[], bigint[], bigint[], interval);

-- Requests whose usage is unknown, and when to ask about them next. A row without a generation id
-- waits for a report or for its deadline. `observed` is what the access log saw, if it saw any.
CREATE TABLE lookups (
    hold_id             uuid PRIMARY KEY,
    generation_id       text,
    reason              text NOT NULL,
    observed            jsonb,
    -- What a report said that it cost; only compared with what was settled.
    reported_cost_picos bigint,
    due_at              timestamptz NOT NULL,
    deadline_at         timestamptz NOT NULL,
    attempts            integer NOT NULL DEFAULT 0,
    is_decided          boolean NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX lookups_due ON lookups (due_at);

-- What was unknown before there was a queue is asked about, too.
INSERT INTO lookups (hold_id, generation_id, reason, due_at, deadline_at)
SELECT id, generation_id, coalesce(unknown_reason, 'no_usage'), clock_timestamp(),
       clock_timestamp() + interval '15 minutes'
FROM holds WHERE state = 'unknown';

-- When a provider last reported a generation of a request of ours: its silence about another means
-- something only while it is heard.
CREATE TABLE report_feeds (
    provider text PRIMARY KEY,
    heard_at timestamptz NOT NULL
);

-- Requests that ended before a decision reached Envoy: what was held for them never will be used.
CREATE TABLE undecided_requests (
    request_id uuid PRIMARY KEY,
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX undecided_requests_seen ON undecided_requests (seen_at);

-- Where the reader of an access-log file stands, and until when it is the one that reads.
CREATE TABLE log_positions (
    path         text PRIMARY KEY,
    inode        bigint NOT NULL,
    fingerprint  bytea NOT NULL,
    offset_bytes bigint NOT NULL CHECK (offset_bytes >= 0),
    read_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Totals as the provider gives them, against the ledger at the same time.
CREATE TABLE provider_totals (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider       text NOT NULL,
    key_version    integer NOT NULL,
    provider_picos numeric NOT NULL,
    ledger_picos   numeric NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE reconciliations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    is_ok       boolean NOT NULL,
    report      jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

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
    request_ids      uuid[],
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
                       amount_picos, flat_cost_picos, max_tokens, request_id, created_at,
                       expires_at)
    SELECT h.id, account_ids[h.i], credential_ids[h.i], model_ids[h.i], endpoints[h.i],
           price_ids[h.i], markups_bps[h.i], h.amount, flat_cost_picos[h.i], h.tokens,
           request_ids[h.i], placed_at, placed_at + lifetime
    FROM unnest(held_ids, held_positions, held_amounts, held_tokens) AS h (id, i, amount, tokens);
    UPDATE accounts a SET held_picos = a.held_picos + s.amount, overdrawn_picos = 0
    FROM (SELECT account_ids[h.i] AS account_id, sum(h.amount)::bigint AS amount
          FROM unnest(held_positions, held_amounts) AS h (i, amount) GROUP BY 1) s
    WHERE a.id = s.account_id;
END $$;

-- Ends live holds, each with its own ending: they leave the live table for history. Returns how
-- many were live. The caller has them locked, and moves the balances. With the owner's rights,
-- because the service may not take a hold away by any other way.
CREATE FUNCTION end_holds(hold_ids uuid[], states text[], reasons text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    ended bigint;
BEGIN
    WITH gone AS (
        DELETE FROM holds h WHERE h.id = ANY (hold_ids) RETURNING h.*
    )
    INSERT INTO ended_holds (id, placed_at, account_id, credential_id, model_id, endpoint,
                             price_id, markup_bps, amount_picos, flat_cost_picos, max_tokens,
                             request_id, state, reason)
    SELECT g.id, g.created_at, g.account_id, g.credential_id, g.model_id, g.endpoint, g.price_id,
           g.markup_bps, g.amount_picos, g.flat_cost_picos, g.max_tokens, g.request_id,
           e.state, e.reason
    FROM gone g JOIN unnest(hold_ids, states, reasons) AS e (id, state, reason) ON e.id = g.id;
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

-- Ends holds without a charge; those that ended already, or do not exist, change nothing.
CREATE FUNCTION release_holds(hold_ids uuid[], reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    live        uuid[];
    account_ids text[];
    amounts     bigint[];
    nothing     bigint[];
BEGIN
    WITH locked AS (
        SELECT h.id, h.account_id, h.amount_picos FROM holds h
        WHERE h.id = ANY (hold_ids) ORDER BY h.id FOR NO KEY UPDATE
    ), sums AS (
        SELECT account_id, sum(amount_picos)::bigint AS amount, array_agg(id) AS ids
        FROM locked GROUP BY account_id
    )
    SELECT array_agg(account_id), array_agg(amount),
           (SELECT array_agg(id) FROM locked)
    INTO account_ids, amounts, live FROM sums;
    IF live IS NULL THEN
        RETURN 0;
    END IF;
    nothing := array_fill(0::bigint, ARRAY[cardinality(amounts)]);
    PERFORM end_holds(live, array_fill('released'::text, ARRAY[cardinality(live)]),
                      array_fill(reason, ARRAY[cardinality(live)]));
    PERFORM move_balances(account_ids, nothing, amounts, nothing);
    RETURN cardinality(live);
END $$;

-- What a month of usage adds up to, per account, before it is dropped.
CREATE FUNCTION seal_usage(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    opens  timestamptz := month::timestamp AT TIME ZONE 'UTC';
    closes timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
BEGIN
    INSERT INTO sealed_usage (month, account_id, requests, prompt_tokens, completion_tokens,
                              provider_cost_picos, charge_picos, excess_picos)
    SELECT seal_usage.month, u.account_id, count(*) FILTER (WHERE u.revision = 0),
           sum(u.prompt_tokens), sum(u.completion_tokens), sum(u.provider_cost_picos),
           sum(u.charge_picos), sum(u.excess_picos)
    FROM usage_records u WHERE u.placed_at >= opens AND u.placed_at < closes
    GROUP BY u.account_id;
    INSERT INTO dropped_months (kind, month, last_batch)
    SELECT 'usage', seal_usage.month, coalesce(max(p.batch), 0)
    FROM postings p WHERE p.booked_at >= opens AND p.booked_at < closes;
END $$;

-- What a month of the ledger adds up to, per account and purpose, before it is dropped.
CREATE FUNCTION seal_entries(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    opens  timestamptz := month::timestamp AT TIME ZONE 'UTC';
    closes timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
BEGIN
    INSERT INTO sealed_entries (month, account_id, template, ledger_account, amount_picos,
                                taken_picos, postings, entries)
    SELECT seal_entries.month, e.account_id, p.template, e.ledger_account, sum(e.amount_picos),
           sum(greatest(-e.amount_picos, 0)), count(DISTINCT p.id), count(*)
    FROM postings p JOIN entries e ON e.posting_id = p.id AND e.booked_at = p.booked_at
    WHERE p.booked_at >= opens AND p.booked_at < closes
    GROUP BY e.account_id, p.template, e.ledger_account;
    INSERT INTO dropped_months (kind, month, last_batch)
    SELECT 'ledger', seal_entries.month, coalesce(max(p.batch), 0)
    FROM postings p WHERE p.booked_at >= opens AND p.booked_at < closes;
END $$;

-- Drops whole months of usage or ledger before a month, after their totals are sealed; returns
-- the months dropped now. The present month and the one before always stay.
CREATE FUNCTION drop_months(wanted_kind text, before date) RETURNS date[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this_month date := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date;
    last_month date := least(before, (this_month - interval '1 month')::date);
    old_month  date;
    dropped    date[] := '{}';
    tables     text;
BEGIN
    IF wanted_kind NOT IN ('usage', 'ledger') THEN
        RAISE EXCEPTION 'there is no history of kind %', wanted_kind;
    END IF;
    PERFORM pg_advisory_xact_lock(7261994310482115);
    FOR old_month IN
        SELECT to_date(right(c.relname, 7), 'YYYY_MM')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = (CASE wanted_kind WHEN 'usage' THEN 'usage_records'
                                              ELSE 'postings' END)::regclass
          AND c.relname ~ '_\d{4}_\d{2}$'
          AND to_date(right(c.relname, 7), 'YYYY_MM') < last_month
        ORDER BY 1
    LOOP
        -- Whoever ends one of these adds to its month: it waits, and so do those after it.
        EXIT WHEN EXISTS (
            SELECT 1 FROM holds h
            WHERE h.created_at < (old_month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
        PERFORM lock_month(wanted_kind, old_month);
        IF wanted_kind = 'usage' THEN
            PERFORM seal_usage(old_month);
        ELSE
            -- Usage without its postings could no longer be compared with them.
            CONTINUE WHEN NOT EXISTS (SELECT 1 FROM dropped_months d
                                      WHERE d.kind = 'usage' AND d.month = old_month);
            PERFORM seal_entries(old_month);
        END IF;
        SELECT string_agg(format('%I', h.parent || '_' || to_char(old_month, 'YYYY_MM')), ', ')
        INTO tables FROM history_tables() h WHERE h.kind = wanted_kind;
        EXECUTE 'DROP TABLE ' || tables;
        dropped := dropped || old_month;
    END LOOP;
    RETURN dropped;
END $$;

REVOKE EXECUTE ON FUNCTION make_month(date), make_immutable(regclass), seal_usage(date),
    seal_entries(date), prepare_months(integer), end_holds(uuid[], text[], text[]),
    drop_months(text, date) FROM PUBLIC;
