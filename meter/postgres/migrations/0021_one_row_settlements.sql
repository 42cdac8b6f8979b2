-- An ordinary settlement is one row: the end of the hold, the usage and the posting together. All
-- other events keep the tables they had, now named for their rows; `postings`, `entries`,
-- `usage_records` and `ended_holds` are views over both. No row of history is rewritten. Several
-- writers append to the ledger at once, each to a chain of its own.

DO $$
DECLARE
    renamed   record;
    partition text;
BEGIN
    FOR renamed IN
        SELECT * FROM (VALUES ('postings', 'posting_rows'), ('entries', 'entry_rows'),
                              ('usage_records', 'usage_rows'), ('ended_holds', 'ended_hold_rows'))
            AS r (before, after)
    LOOP
        FOR partition IN
            SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = renamed.before::regclass
        LOOP
            EXECUTE format('ALTER TABLE %I RENAME TO %I', partition,
                           renamed.after || substr(partition, length(renamed.before) + 1));
        END LOOP;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', renamed.before, renamed.after);
    END LOOP;
END $$;

-- One request that was settled within its hold, by usage with a cost. Amounts are signed as entries
-- are: positive on the ledger account that receives.
CREATE TABLE settlements (
    id                    uuid NOT NULL,
    placed_at             timestamptz NOT NULL,
    seq                   bigint NOT NULL DEFAULT nextval('postings_position'),
    batch                 bigint NOT NULL,
    recorded_at           timestamptz NOT NULL,
    started_at            timestamptz NOT NULL,
    request_id            uuid,
    price_id              bigint NOT NULL,
    held_picos            bigint NOT NULL,
    flat_cost_picos       bigint NOT NULL,
    max_tokens            bigint NOT NULL,
    customer_picos        bigint NOT NULL,
    provider_picos        bigint NOT NULL,
    revenue_picos         bigint NOT NULL,
    prompt_tokens         bigint NOT NULL,
    completion_tokens     bigint NOT NULL,
    cached_tokens         bigint NOT NULL,
    cache_write_tokens    bigint NOT NULL,
    reasoning_tokens      bigint NOT NULL,
    markup_bps            integer NOT NULL,
    latency_ms            integer NOT NULL,
    time_to_first_byte_ms integer,
    status_code           integer NOT NULL,
    is_streaming          boolean NOT NULL,
    account_id            text NOT NULL,
    credential_id         text NOT NULL,
    pass_id               text,
    model_id              text NOT NULL,
    endpoint              text NOT NULL,
    generation_id         text,
    response_flags        text NOT NULL,
    price_source          text NOT NULL CHECK (price_source IN ('provider', 'catalogue')),
    source                text NOT NULL CHECK (source IN ('stream', 'file', 'lookup')),
    PRIMARY KEY (id, placed_at),
    CHECK (customer_picos + provider_picos + revenue_picos = 0),
    CHECK (customer_picos < 0 AND provider_picos >= 0 AND revenue_picos >= 0),
    CHECK (held_picos + customer_picos >= 0)
) PARTITION BY RANGE (placed_at);

CREATE INDEX settlements_account ON settlements (account_id, seq);
CREATE INDEX settlements_usage ON settlements (account_id, started_at, id);

-- The settlements of months whose usage was dropped: their ledger is kept, and shown alone.
CREATE TABLE kept_settlements (LIKE settlements INCLUDING ALL) PARTITION BY RANGE (placed_at);
CREATE TABLE kept_settlements_default PARTITION OF kept_settlements DEFAULT;

SELECT make_immutable(name::regclass)
FROM unnest(ARRAY['settlements', 'kept_settlements', 'kept_settlements_default']) AS name;

CREATE VIEW postings AS
SELECT id, booked_at, seq, batch, template, account_id, hold_id, reason, recorded_at
FROM posting_rows
UNION ALL
SELECT id, placed_at, seq, batch, 'settlement', account_id, id, NULL, recorded_at
FROM settlements
UNION ALL
SELECT id, placed_at, seq, batch, 'settlement', account_id, id, NULL, recorded_at
FROM kept_settlements;

CREATE VIEW entries AS
SELECT posting_id, booked_at, line, ledger_account, account_id, amount_picos FROM entry_rows
UNION ALL
SELECT s.id, s.placed_at, e.line, e.ledger_account, s.account_id, e.amount_picos
FROM settlements s
CROSS JOIN LATERAL (VALUES (0::smallint, 'customer', s.customer_picos),
                           (1::smallint, 'provider', s.provider_picos),
                           (2::smallint, 'revenue', s.revenue_picos))
    AS e (line, ledger_account, amount_picos)
WHERE e.amount_picos <> 0
UNION ALL
SELECT s.id, s.placed_at, e.line, e.ledger_account, s.account_id, e.amount_picos
FROM kept_settlements s
CROSS JOIN LATERAL (VALUES (0::smallint, 'customer', s.customer_picos),
                           (1::smallint, 'provider', s.provider_picos),
                           (2::smallint, 'revenue', s.revenue_picos))
    AS e (line, ledger_account, amount_picos)
WHERE e.amount_picos <> 0;

CREATE VIEW usage_records AS
SELECT hold_id, placed_at, revision, kind, account_id, credential_id, model_id, endpoint,
       generation_id, started_at, recorded_at, prompt_tokens, completion_tokens, cached_tokens,
       cache_write_tokens, reasoning_tokens, provider_cost_picos, charge_picos, excess_picos,
       markup_bps, price_id, price_source, latency_ms, time_to_first_byte_ms, status_code,
       response_flags, is_streaming, source
FROM usage_rows
UNION ALL
SELECT id, placed_at, 0::smallint, 'settlement', account_id, credential_id, model_id, endpoint,
       generation_id, started_at, recorded_at, prompt_tokens, completion_tokens, cached_tokens,
       cache_write_tokens, reasoning_tokens, provider_picos, -customer_picos, 0::bigint,
       markup_bps, price_id, price_source, latency_ms, time_to_first_byte_ms, status_code,
       response_flags, is_streaming, source
FROM settlements;

CREATE VIEW ended_holds AS
SELECT id, placed_at, account_id, credential_id, model_id, endpoint, price_id, markup_bps,
       amount_picos, flat_cost_picos, max_tokens, request_id, state, reason, ended_at, pass_id
FROM ended_hold_rows
UNION ALL
SELECT id, placed_at, account_id, credential_id, model_id, endpoint, price_id, markup_bps,
       held_picos, flat_cost_picos, max_tokens, request_id, 'settled', 'settled', recorded_at,
       pass_id
FROM settlements;

-- Whoever appends takes a chain that nobody else has at that moment, so no two writers wait for one
-- another. Position and hash are those of its youngest batch.
CREATE TABLE ledger_chains (
    id       smallint PRIMARY KEY CHECK (id BETWEEN 1 AND 32),
    position bigint NOT NULL,
    hash     bytea NOT NULL
) WITH (fillfactor = 30);

-- What the first batch of a chain has as the hash before it.
CREATE FUNCTION first_hash(chain smallint) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to(
        'tollkeeper ledger' || CASE chain WHEN 1 THEN '' ELSE ' ' || chain END, 'UTF8'))
$$;

INSERT INTO ledger_chains (id, position, hash)
SELECT 1, number, hash FROM ledger_head
UNION ALL
SELECT chain, 0, first_hash(chain::smallint) FROM generate_series(2, 32) AS chain;

-- The numbers of batches are unique in all chains. In its chain, a batch has a position.
CREATE SEQUENCE ledger_batch_numbers;
SELECT setval('ledger_batch_numbers', number + 1, false) FROM ledger_head;
DROP TABLE ledger_head;
-- The batches of before are chain 1, where their position is their number.
ALTER TABLE ledger_batches
    ADD COLUMN chain    smallint NOT NULL DEFAULT 1,
    ADD COLUMN position bigint;
ALTER TABLE ledger_batches ALTER COLUMN chain DROP DEFAULT;

CREATE OR REPLACE FUNCTION history_tables()
RETURNS TABLE (parent text, kind text, instant text) LANGUAGE sql IMMUTABLE AS $$
    VALUES ('ended_hold_rows', 'usage', 'placed_at'), ('usage_rows', 'usage', 'placed_at'),
           ('settlements', 'usage', 'placed_at'),
           ('posting_rows', 'ledger', 'booked_at'), ('entry_rows', 'ledger', 'booked_at'),
           ('ledger_batches', 'chain', 'sealed_at')
$$;

-- Settlements have the months that the other tables have.
DO $$
DECLARE
    month date;
BEGIN
    FOR month IN
        SELECT to_date(right(c.relname, 7), 'YYYY_MM')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'usage_rows'::regclass AND c.relname ~ '_\d{4}_\d{2}$'
    LOOP
        PERFORM make_month(month);
    END LOOP;
    CREATE TABLE settlements_default PARTITION OF settlements DEFAULT;
    PERFORM make_immutable('settlements_default'::regclass);
END $$;

-- A settlement as the chain signs it: the binary form of its values, with their types and lengths.
CREATE FUNCTION settlement_record(s settlements) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT record_send(ROW(
        s.id, s.placed_at, s.seq, s.recorded_at, s.started_at, s.request_id, s.price_id,
        s.held_picos, s.flat_cost_picos, s.max_tokens, s.customer_picos, s.provider_picos,
        s.revenue_picos, s.prompt_tokens, s.completion_tokens, s.cached_tokens,
        s.cache_write_tokens, s.reasoning_tokens, s.markup_bps, s.latency_ms,
        s.time_to_first_byte_ms, s.status_code, s.is_streaming, s.account_id, s.credential_id,
        s.pass_id, s.model_id, s.endpoint, s.generation_id, s.response_flags, s.price_source,
        s.source))
$$;

-- Takes a chain until the commit: the first that nobody has. With more writers than chains, it
-- waits for one of them.
CREATE FUNCTION take_chain() RETURNS ledger_chains LANGUAGE plpgsql AS $$
DECLARE
    taken ledger_chains;
BEGIN
    SELECT * INTO taken FROM ledger_chains ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        SELECT * INTO taken FROM ledger_chains WHERE id = 1 + floor(random() * 32)::integer
        FOR NO KEY UPDATE;
    END IF;
    RETURN taken;
END $$;

-- Adds a batch to a chain that the caller has taken. `signed` is what it says of its rows.
CREATE FUNCTION seal_batch(
    chain ledger_chains, number bigint, at timestamptz, signed bytea, postings bigint,
    entries bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    digest bytea := sha256(chain.hash || signed);
BEGIN
    INSERT INTO ledger_batches (number, sealed_at, previous_hash, hash, postings, entries, chain,
                                position)
    VALUES (number, at, chain.hash, digest, postings, entries, chain.id, chain.position + 1);
    UPDATE ledger_chains c SET position = chain.position + 1, hash = digest WHERE c.id = chain.id;
END $$;

CREATE OR REPLACE FUNCTION append_postings(
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
    chain   ledger_chains;
    number  bigint;
    batched timestamptz;
    signed  text;
BEGIN
    chain := take_chain();
    -- Under the lock of the chain, so that numbers rise along each chain.
    number := nextval('ledger_batch_numbers');
    batched := clock_timestamp();
    INSERT INTO posting_rows (id, booked_at, batch, template, account_id, hold_id, reason,
                              recorded_at)
    SELECT p.id, coalesce(p.booked_at, batched), number, p.template, p.account_id, p.hold_id,
           p.reason, batched
    FROM unnest(posting_ids, bookings, templates, account_ids, hold_ids, reasons)
        AS p (id, booked_at, template, account_id, hold_id, reason);
    INSERT INTO entry_rows (posting_id, booked_at, line, ledger_account, account_id, amount_picos)
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
    PERFORM seal_batch(chain, number, batched, convert_to(signed, 'UTF8'),
                       cardinality(posting_ids), cardinality(entry_postings));
    RETURN number;
END $$;

-- Settles holds that are live, each within its amount, with their charge: one row for each, and the
-- money of accounts, budgets and totals. The arrays are sorted by hold, because holds are locked in
-- that order. It leaves out holds that are not live, whose charge is above their amount or 0, or
-- whose account is doubted; returns the others. It waits 200 ms at most for each row. With the
-- owner's rights, because the service may not take a hold away by any other way.
CREATE FUNCTION settle_holds(
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
               g.amount_picos, g.flat_cost_picos, g.max_tokens, -g.charge, g.cost,
               g.charge - g.cost, g.prompt, g.completion, g.cached, g.cache_write, g.reasoning,
               g.markup_bps, g.latency, g.first_byte, g.status, g.is_streaming, g.account_id,
               g.credential_id, g.pass_id, g.model_id, g.endpoint, g.generation, g.flags,
               'provider', g.source
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
    PERFORM move_money(owners, taken, freed, nothing, spenders, days, spent, spent_freed);
    PERFORM seal_batch(chain, number, batched, signed, cardinality(settled_ids),
                       2 * cardinality(settled_ids) + with_revenue);
END $$;

CREATE OR REPLACE FUNCTION end_holds(hold_ids uuid[], states text[], reasons text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    ended bigint;
BEGIN
    WITH gone AS (
        DELETE FROM holds h WHERE h.id = ANY (hold_ids) RETURNING h.*
    )
    INSERT INTO ended_hold_rows (id, placed_at, account_id, credential_id, pass_id, model_id,
                                 endpoint, price_id, markup_bps, amount_picos, flat_cost_picos,
                                 max_tokens, request_id, state, reason)
    SELECT g.id, g.created_at, g.account_id, g.credential_id, g.pass_id, g.model_id, g.endpoint,
           g.price_id, g.markup_bps, g.amount_picos, g.flat_cost_picos, g.max_tokens,
           g.request_id, e.state, e.reason
    FROM gone g JOIN unnest(hold_ids, states, reasons) AS e (id, state, reason) ON e.id = g.id;
    GET DIAGNOSTICS ended = ROW_COUNT;
    RETURN ended;
END $$;

REVOKE EXECUTE ON FUNCTION settle_holds(
    uuid[], bigint[], text[], timestamptz[], bigint[], bigint[], bigint[], bigint[], bigint[],
    integer[], integer[], integer[], text[], boolean[], text[], text[]) FROM PUBLIC;
