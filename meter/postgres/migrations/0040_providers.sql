-- Providers as rows, the models that each of them offers, and prices that name their provider.

-- The upstreams that requests may go to. The base URL of `openrouter` is a setting of the meter.
CREATE TABLE providers (
    id           text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9_-]{0,39}$'),
    dialect      text NOT NULL
        CHECK (dialect IN ('openrouter', 'openai', 'anthropic', 'google', 'openai_compatible')),
    base_url     text CHECK (length(base_url) BETWEEN 1 AND 500),
    state        text NOT NULL DEFAULT 'enabled' CHECK (state IN ('enabled', 'disabled')),
    -- Put before the provider's own names of models, so that its models have ids of their own here.
    model_prefix text NOT NULL DEFAULT '' CHECK (model_prefix ~ '^[A-Za-z0-9._/-]{0,60}$'),
    -- Its models cost nothing unless a price says otherwise: a server of our own.
    is_free      boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((id = 'openrouter') = (dialect = 'openrouter')),
    CHECK ((id = 'openrouter') = (base_url IS NULL))
);
INSERT INTO providers (id, dialect) VALUES ('openrouter', 'openrouter');

-- The provider whose listing defines a model. A listing unlists models of its own only.
ALTER TABLE models ADD COLUMN source text NOT NULL DEFAULT 'openrouter';

-- The models of every provider but openrouter, whose offers are the listed models themselves.
CREATE TABLE offers (
    provider              text NOT NULL REFERENCES providers (id) ON DELETE CASCADE,
    model_id              text NOT NULL REFERENCES models (id),
    -- The provider's own name of the model.
    upstream_name         text NOT NULL CHECK (length(upstream_name) BETWEEN 1 AND 200),
    context_length        bigint NOT NULL CHECK (context_length > 0),
    max_completion_tokens bigint NOT NULL CHECK (max_completion_tokens > 0),
    is_offered            boolean NOT NULL DEFAULT true,
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (provider, model_id)
);
CREATE INDEX offers_model ON offers (model_id);

ALTER TABLE prices
    -- No foreign key: a price stays when its provider is deleted, because holds name it.
    ADD COLUMN provider text NOT NULL DEFAULT 'openrouter',
    -- Who says so: the provider's own listing, OpenRouter's catalogue for the same model, or an
    -- administrator, whose word a sync never replaces.
    ADD COLUMN origin text NOT NULL DEFAULT 'provider'
        CHECK (origin IN ('provider', 'catalogue', 'administrator')),
    DROP CONSTRAINT prices_model_id_effective_from_key,
    ADD CONSTRAINT prices_provider_model_id_effective_from_key
        UNIQUE (provider, model_id, effective_from);

-- A provider whose listing could not be taken: since when, and why. Null after a sync that worked.
ALTER TABLE catalogue_syncs
    ALTER COLUMN synced_at DROP NOT NULL,
    ALTER COLUMN models SET DEFAULT 0,
    ADD COLUMN failed_at timestamptz,
    ADD COLUMN failure text CHECK (length(failure) BETWEEN 1 AND 500),
    ADD CONSTRAINT catalogue_syncs_failure_is_whole
        CHECK ((failed_at IS NULL) = (failure IS NULL));
