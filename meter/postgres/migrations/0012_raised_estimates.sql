-- The classes of requests that proved to cost more than their holds, with the factor by which their
-- estimates are raised. Written apart from settlements, so that no settlement waits for its rows.
CREATE TABLE raised_estimates (
    model_id            text NOT NULL,
    endpoint            text NOT NULL,
    factor_bps          integer NOT NULL CHECK (factor_bps BETWEEN 10000 AND 1000000),
    -- In force for the holds that were placed before `raised_at` reached every authz.
    previous_factor_bps integer NOT NULL DEFAULT 10000 CHECK (previous_factor_bps >= 10000),
    raised_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_excess_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    excesses            bigint NOT NULL CHECK (excesses > 0),
    PRIMARY KEY (model_id, endpoint)
) WITH (fillfactor = 50);
