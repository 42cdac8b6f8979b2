-- Systems that usage is sent to. Each remembers the position of the last record that it took, so
-- that nothing waits in a queue while it is away.
CREATE TABLE sinks (
    id              text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
    kind            text NOT NULL CHECK (kind IN ('lago', 'cloudevents')),
    url             text NOT NULL CHECK (length(url) BETWEEN 1 AND 500),
    event_code      text NOT NULL CHECK (length(event_code) BETWEEN 1 AND 100),
    -- The `source` of CloudEvents.
    source          text CHECK (length(source) BETWEEN 1 AND 200),
    -- The plan of Lago under which accounts get a subscription; NULL makes none.
    plan_code       text CHECK (length(plan_code) BETWEEN 1 AND 100),
    sealed          bytea,
    key_version     integer NOT NULL DEFAULT 0,
    state           text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'ended')),
    position        bigint NOT NULL CHECK (position >= 0),
    sent            bigint NOT NULL DEFAULT 0,
    -- When the oldest record that it did not take was recorded; NULL where it took all.
    oldest_at       timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    error           text CHECK (length(error) BETWEEN 1 AND 500),
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The worker that sends, until when nobody else does.
    taken_by        uuid,
    taken_until     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind = 'cloudevents') = (source IS NOT NULL)),
    CHECK (kind = 'lago' OR plan_code IS NULL)
) WITH (fillfactor = 50);

-- Events that a sink refuses, whole, until an administrator replays or discards them.
CREATE TABLE parked_events (
    sink_id     text NOT NULL REFERENCES sinks (id),
    position    bigint NOT NULL,
    account_id  text NOT NULL,
    event       json NOT NULL,
    error       text NOT NULL CHECK (length(error) BETWEEN 1 AND 500),
    parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_replayed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (sink_id, position)
);

-- Accounts that have a customer and a subscription in a sink.
CREATE TABLE sink_accounts (
    sink_id    text NOT NULL REFERENCES sinks (id),
    account_id text NOT NULL,
    PRIMARY KEY (sink_id, account_id)
);

-- The view of usage with its position.
CREATE OR REPLACE VIEW usage_records AS
SELECT hold_id, placed_at, revision, kind, account_id, credential_id, model_id, endpoint,
       generation_id, started_at, recorded_at, prompt_tokens, completion_tokens, cached_tokens,
       cache_write_tokens, reasoning_tokens, provider_cost_picos, charge_picos, excess_picos,
       markup_bps, price_id, price_source, latency_ms, time_to_first_byte_ms, status_code,
       response_flags, is_streaming, source, seq
FROM usage_rows
UNION ALL
SELECT id, placed_at, 0::smallint, 'settlement', account_id, credential_id, model_id,
       coalesce(endpoint, 'chat_completions'), generation_id, started_at, recorded_at,
       prompt_tokens, completion_tokens, coalesce(cached_tokens, 0),
       coalesce(cache_write_tokens, 0), coalesce(reasoning_tokens, 0), provider_picos,
       -customer_picos, 0::bigint, markup_bps, price_id, coalesce(price_source, 'provider'),
       latency_ms, time_to_first_byte_ms, coalesce(status_code, 200),
       coalesce(response_flags, ''), is_streaming, coalesce(source, 'stream'), seq
FROM settlements;
