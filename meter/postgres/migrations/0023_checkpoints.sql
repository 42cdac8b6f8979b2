-- Verification continues from a checkpoint: the ledger was verified up to it, and its sums by
-- account are sealed in it. So a daily verification reads the rows of that day.

-- The batch of the postings of a usage record. Records of before this migration have none, nor have
-- those of requests that cost nothing.
ALTER TABLE usage_rows ADD COLUMN batch bigint;

-- Rows come in the order of their batches, so this kind of index is small and cheap to write.
CREATE INDEX settlements_batch ON settlements USING brin (batch)
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX kept_settlements_batch ON kept_settlements USING brin (batch)
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX posting_rows_batch ON posting_rows USING brin (batch)
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX usage_rows_batch ON usage_rows USING brin (batch)
    WITH (pages_per_range = 16, autosummarize = on);

-- Every batch up to `last_batch` was verified. `positions` and `hashes` are the heads of the chains
-- there, `sums_hash` is a digest of `checkpoint_sums`. Each checkpoint signs the one before.
CREATE TABLE ledger_checkpoints (
    number        bigint PRIMARY KEY,
    last_batch    bigint NOT NULL,
    positions     bigint[] NOT NULL,
    hashes        bytea[] NOT NULL,
    sums_hash     bytea NOT NULL,
    previous_hash bytea NOT NULL,
    hash          bytea NOT NULL,
    sealed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
SELECT make_immutable('ledger_checkpoints');

-- Sums over all rows up to the youngest checkpoint, those of dropped months included.
CREATE TABLE checkpoint_sums (
    account_id    text PRIMARY KEY,
    customer      numeric NOT NULL,
    -- The customer's entries about requests, as a positive amount, and those of credit.
    charged       numeric NOT NULL,
    credited      numeric NOT NULL,
    cost          numeric NOT NULL,
    -- Charges beyond holds and reversed payments: what explains an overdraft.
    over          numeric NOT NULL,
    used_charge   numeric NOT NULL,
    used_cost     numeric NOT NULL
) WITH (fillfactor = 70);

CREATE FUNCTION checkpoint_sums_hash() RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(coalesce(string_agg(
        record_send(ROW(account_id, customer, charged, credited, cost, over, used_charge,
                        used_cost)), ''::bytea ORDER BY account_id), ''))
    FROM checkpoint_sums
$$;

-- What the rows of the batches after `after`, up to `up_to`, add up to by account.
CREATE FUNCTION sums_of_batches(after bigint, up_to bigint) RETURNS TABLE (
    account_id text, customer numeric, charged numeric, credited numeric, cost numeric,
    over numeric, used_charge numeric, used_cost numeric
) LANGUAGE sql STABLE AS $$
    SELECT r.account_id, sum(r.customer), sum(r.charged), sum(r.credited), sum(r.cost),
           sum(r.over), sum(r.used_charge), sum(r.used_cost)
    FROM (
        SELECT s.account_id, s.customer_picos::numeric AS customer,
               -s.customer_picos::numeric AS charged, 0::numeric AS credited,
               s.provider_picos::numeric AS cost, 0::numeric AS over,
               -s.customer_picos::numeric AS used_charge, s.provider_picos::numeric AS used_cost
        FROM settlements s WHERE s.batch > after AND s.batch <= up_to
        UNION ALL
        SELECT s.account_id, s.customer_picos, -s.customer_picos, 0, s.provider_picos, 0,
               -s.customer_picos, s.provider_picos
        FROM kept_settlements s WHERE s.batch > after AND s.batch <= up_to
        UNION ALL
        SELECT e.account_id,
               CASE WHEN e.ledger_account = 'customer' THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND p.hold_id IS NOT NULL
                    THEN -e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND p.hold_id IS NULL
                         AND c.posting_id IS NOT NULL THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'provider' THEN e.amount_picos ELSE 0 END,
               CASE WHEN p.template IN ('excess', 'correction', 'payment_reversal')
                         AND e.ledger_account = 'customer'
                    THEN greatest(0, -e.amount_picos) ELSE 0 END, 0, 0
        FROM posting_rows p
        JOIN entry_rows e ON e.posting_id = p.id AND e.booked_at = p.booked_at
        LEFT JOIN credit_postings c ON c.posting_id = p.id AND c.booked_at = p.booked_at
        WHERE p.batch > after AND p.batch <= up_to
        UNION ALL
        SELECT u.account_id, 0, 0, 0, 0, 0, u.charge_picos, u.provider_cost_picos
        FROM usage_rows u WHERE u.batch > after AND u.batch <= up_to
    ) r
    GROUP BY r.account_id
$$;

-- What all rows up to a batch add up to by account, those of dropped months included. It reads the
-- whole books, once: for the first checkpoint.
CREATE FUNCTION sums_of_books(up_to bigint) RETURNS TABLE (
    account_id text, customer numeric, charged numeric, credited numeric, cost numeric,
    over numeric, used_charge numeric, used_cost numeric
) LANGUAGE sql STABLE AS $$
    SELECT r.account_id, sum(r.customer), sum(r.charged), sum(r.credited), sum(r.cost),
           sum(r.over), sum(r.used_charge), sum(r.used_cost)
    FROM (
        SELECT b.account_id, b.customer, b.charged, b.credited, b.cost, b.over, b.used_charge,
               b.used_cost
        FROM sums_of_batches(-1, up_to) b
        UNION ALL
        SELECT u.account_id, 0, 0, 0, 0, 0, u.charge_picos, u.provider_cost_picos
        FROM usage_rows u WHERE u.batch IS NULL
        UNION ALL
        SELECT u.account_id, 0, 0, 0, 0, 0, u.charge_picos, u.provider_cost_picos
        FROM sealed_usage u
        UNION ALL
        -- The usage of these is in the sealed sums.
        SELECT k.account_id, 0, 0, 0, 0, 0, k.customer_picos, -k.provider_picos
        FROM kept_settlements k WHERE k.batch <= up_to
        UNION ALL
        SELECT e.account_id,
               CASE WHEN e.ledger_account = 'customer' THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND e.template IN (
                        'settlement', 'excess', 'reversal', 'correction')
                    THEN -e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND e.template NOT IN (
                        'settlement', 'excess', 'reversal', 'correction')
                    THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'provider' THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND e.template IN (
                        'excess', 'correction', 'payment_reversal')
                    THEN e.taken_picos ELSE 0 END, 0, 0
        FROM sealed_entries e
    ) r
    GROUP BY r.account_id
$$;

-- Adds the batches up to `up_to` to the sums and seals them; returns the number of the checkpoint.
-- The caller verified these batches in the same transaction, and holds the lock of verification.
CREATE FUNCTION seal_checkpoint(up_to bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last      ledger_checkpoints;
    after     bigint;
    ends_at   bigint[];
    ends_with bytea[];
    sums      bytea;
    previous  bytea;
BEGIN
    SELECT * INTO last FROM ledger_checkpoints ORDER BY number DESC LIMIT 1;
    after := coalesce(last.last_batch, 0);
    previous := coalesce(last.hash, sha256('tollkeeper checkpoints'));
    IF last.number IS NULL THEN
        INSERT INTO checkpoint_sums SELECT * FROM sums_of_books(up_to);
    ELSE
        INSERT INTO checkpoint_sums AS s
        SELECT * FROM sums_of_batches(after, up_to) n ORDER BY n.account_id
        ON CONFLICT (account_id) DO UPDATE SET
            customer = s.customer + excluded.customer, charged = s.charged + excluded.charged,
            credited = s.credited + excluded.credited, cost = s.cost + excluded.cost,
            over = s.over + excluded.over, used_charge = s.used_charge + excluded.used_charge,
            used_cost = s.used_cost + excluded.used_cost;
    END IF;
    SELECT array_agg(coalesce(b.position, last.positions[c.id], 0) ORDER BY c.id),
           array_agg(coalesce(b.hash, last.hashes[c.id], first_hash(c.id)) ORDER BY c.id)
    INTO ends_at, ends_with
    FROM (SELECT chain::smallint AS id FROM generate_series(1, 32) AS chain) c
    LEFT JOIN (SELECT DISTINCT ON (chain) chain, coalesce(position, number) AS position, hash
               FROM ledger_batches WHERE number > after AND number <= up_to
               ORDER BY chain, number DESC) b ON b.chain = c.id;
    sums := checkpoint_sums_hash();
    INSERT INTO ledger_checkpoints (number, last_batch, positions, hashes, sums_hash,
                                    previous_hash, hash)
    VALUES (coalesce(last.number, 0) + 1, up_to, ends_at, ends_with, sums, previous,
            sha256(previous || record_send(ROW(up_to, ends_at, ends_with, sums))));
    RETURN coalesce(last.number, 0) + 1;
END $$;

-- As before. The settlements of a month whose usage is dropped move to the kept ones, and go with
-- the ledger of that month. Where checkpoints are sealed, a month stays until one covers all of its
-- rows: sums must have them first.
CREATE OR REPLACE FUNCTION drop_months(wanted_kind text, before date) RETURNS date[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this_month date := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date;
    last_month date := least(before, (this_month - interval '1 month')::date);
    old_month  date;
    dropped    date[] := '{}';
    settled    text;
    tables     text;
BEGIN
    IF wanted_kind NOT IN ('usage', 'ledger') THEN
        RAISE EXCEPTION 'there is no history of kind %', wanted_kind;
    END IF;
    PERFORM pg_advisory_xact_lock(7261994310482115);
    FOR old_month IN
        SELECT to_date(right(c.relname, 7), 'YYYY_MM')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = (CASE wanted_kind WHEN 'usage' THEN 'usage_rows'
                                              ELSE 'posting_rows' END)::regclass
          AND c.relname ~ '_\d{4}_\d{2}$'
          AND to_date(right(c.relname, 7), 'YYYY_MM') < last_month
        ORDER BY 1
    LOOP
        -- Whoever ends one of these adds to its month: it waits, and so do those after it.
        EXIT WHEN EXISTS (
            SELECT 1 FROM holds h
            WHERE h.created_at < (old_month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
        EXIT WHEN EXISTS (
            SELECT 1 FROM (SELECT last_batch FROM ledger_checkpoints
                           ORDER BY number DESC LIMIT 1) c
            WHERE c.last_batch < (
                SELECT max(p.batch) FROM postings p
                WHERE p.booked_at >= old_month::timestamp AT TIME ZONE 'UTC'
                  AND p.booked_at < (old_month + interval '1 month')::timestamp
                      AT TIME ZONE 'UTC'));
        settled := 'settlements_' || to_char(old_month, 'YYYY_MM');
        PERFORM lock_month(wanted_kind, old_month);
        IF wanted_kind = 'usage' THEN
            PERFORM seal_usage(old_month);
            EXECUTE format('ALTER TABLE settlements DETACH PARTITION %I', settled);
            EXECUTE format('ALTER TABLE kept_settlements ATTACH PARTITION %I'
                           ' FOR VALUES FROM (%L) TO (%L)', settled,
                           old_month::timestamp AT TIME ZONE 'UTC',
                           (old_month + interval '1 month')::timestamp AT TIME ZONE 'UTC');
        ELSE
            -- Usage without its postings could no longer be compared with them.
            CONTINUE WHEN NOT EXISTS (SELECT 1 FROM dropped_months d
                                      WHERE d.kind = 'usage' AND d.month = old_month);
            PERFORM seal_entries(old_month);
            EXECUTE format('DROP TABLE IF EXISTS %I', settled);
        END IF;
        SELECT string_agg(format('%I', h.parent || '_' || to_char(old_month, 'YYYY_MM')), ', ')
        INTO tables FROM history_tables() h
        WHERE h.kind = wanted_kind AND h.parent <> 'settlements';
        EXECUTE 'DROP TABLE ' || tables;
        dropped := dropped || old_month;
    END LOOP;
    RETURN dropped;
END $$;

