-- Webhooks of accounts. A message is written by the transaction that causes its event, once for each
-- webhook that wants it, and is the queue at the same time.

CREATE TABLE webhooks (
    id                text PRIMARY KEY CHECK (id ~ '^wh_[0-9a-f]{32}$'),
    account_id        text NOT NULL REFERENCES accounts (id),
    url               text NOT NULL CHECK (length(url) BETWEEN 1 AND 500),
    events            text[] NOT NULL CHECK (cardinality(events) BETWEEN 1 AND 4 AND events <@ ARRAY[
        'balance.low', 'budget.reached', 'key.revoked', 'payment.failed']),
    -- `balance.low` is told when the balance falls below this.
    low_balance_picos bigint CHECK (low_balance_picos >= 0),
    -- `budget.reached` is told when so much of a budget is spent.
    budget_percent    integer NOT NULL CHECK (budget_percent BETWEEN 1 AND 100),
    sealed            bytea NOT NULL,
    -- Whether the balance was below the threshold at the last look.
    is_low            boolean NOT NULL DEFAULT false,
    -- Whether messages wait. Set under the lock of this row, or with a message that refers to it.
    is_due            boolean NOT NULL DEFAULT false,
    failures          integer NOT NULL DEFAULT 0,
    error             text CHECK (length(error) BETWEEN 1 AND 500),
    next_attempt_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The worker that sends, until when nobody else does.
    taken_by          uuid,
    taken_until       timestamptz,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (('balance.low' = ANY (events)) = (low_balance_picos IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX webhooks_account ON webhooks (account_id);
CREATE INDEX webhooks_due ON webhooks (next_attempt_at) WHERE is_due;

CREATE TABLE webhook_messages (
    id           text PRIMARY KEY DEFAULT 'msg_' || replace(gen_random_uuid()::text, '-', ''),
    seq          bigint GENERATED ALWAYS AS IDENTITY,
    webhook_id   text NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    type         text NOT NULL,
    -- Names what the message tells of, so that a webhook is told once.
    cause        text NOT NULL,
    body         text NOT NULL CHECK (length(body) BETWEEN 1 AND 5000),
    state        text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'parked')),
    attempts     integer NOT NULL DEFAULT 0,
    error        text CHECK (length(error) BETWEEN 1 AND 500),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempted_at timestamptz,
    UNIQUE (webhook_id, type, cause)
) WITH (fillfactor = 70);
CREATE INDEX webhook_messages_listed ON webhook_messages (webhook_id, seq);
CREATE INDEX webhook_messages_waiting ON webhook_messages (webhook_id, seq)
    WHERE state = 'waiting';
CREATE INDEX webhook_messages_age ON webhook_messages (created_at);

-- Pico-dollars as a decimal string of US dollars with two decimals at least.
CREATE FUNCTION usd(picos bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN scale(d.usd) < 2 THEN round(d.usd, 2) ELSE d.usd END::text
    FROM (SELECT trim_scale(picos::numeric * 0.000000000001)) AS d (usd)
$$;

-- The body of a message, in the form of Standard Webhooks.
CREATE FUNCTION webhook_body(event text, members json) RETURNS text LANGUAGE sql AS $$
    SELECT json_build_object(
        'type', event,
        'timestamp', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'data', members)::text
$$;

-- Tells the webhooks of an account that want an event; each of one cause once. Returns how many
-- messages were written. In the order of ids, so that no two transactions wait for one another.
CREATE FUNCTION tell_account(account text, event text, event_cause text, members json)
RETURNS bigint LANGUAGE sql AS $$
    WITH wanting AS (
        SELECT w.id FROM webhooks w WHERE w.account_id = account AND event = ANY (w.events)
        ORDER BY w.id FOR NO KEY UPDATE
    ), told AS (
        INSERT INTO webhook_messages (webhook_id, type, cause, body)
        SELECT w.id, event, event_cause, webhook_body(event, members) FROM wanting w
        ON CONFLICT (webhook_id, type, cause) DO NOTHING
        RETURNING webhook_id
    ), due AS (
        UPDATE webhooks w SET is_due = true FROM told t WHERE w.id = t.webhook_id RETURNING 1
    )
    SELECT count(*) FROM due
$$;

-- Every way to revoke a key passes here.
CREATE FUNCTION tell_of_revoked_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tell_account(NEW.account_id, 'key.revoked', NEW.id,
                         json_build_object('key_id', NEW.id, 'name', NEW.name));
    RETURN NULL;
END $$;
CREATE TRIGGER credentials_tell_of_revoked_key AFTER UPDATE OF revoked_at ON credentials
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL AND NEW.kind = 'key')
    EXECUTE FUNCTION tell_of_revoked_key();

-- A renewal that could not be charged: once for each period.
CREATE FUNCTION tell_of_unpaid_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tell_account(
        NEW.account_id, 'payment.failed',
        format('subscription:%s:%s', NEW.id, extract(epoch FROM NEW.period_start)::bigint),
        json_build_object('kind', 'subscription', 'subscription_id', NEW.id,
                          'plan', NEW.plan_id, 'reason', 'the period was not paid'));
    RETURN NULL;
END $$;
CREATE TRIGGER subscriptions_tell_of_unpaid_period AFTER UPDATE OF status ON subscriptions
    FOR EACH ROW WHEN (NEW.status IN ('past_due', 'unpaid') AND OLD.status <> NEW.status)
    EXECUTE FUNCTION tell_of_unpaid_period();
