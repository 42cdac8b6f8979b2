-- The rest of the price members that a provider lists, price tiers by length of prompt, and the
-- models that are kept out because a price of theirs is not understood.

-- Null: not listed. A request that may cause such a cost is refused for the model.
ALTER TABLE prices
    ADD COLUMN image_token_picos    bigint CHECK (image_token_picos >= 0),
    ADD COLUMN image_output_picos   bigint CHECK (image_output_picos >= 0),
    ADD COLUMN audio_picos          bigint CHECK (audio_picos >= 0),
    ADD COLUMN audio_output_picos   bigint CHECK (audio_output_picos >= 0),
    ADD COLUMN audio_cache_picos    bigint CHECK (audio_cache_picos >= 0),
    ADD COLUMN cache_write_1h_picos bigint CHECK (cache_write_1h_picos >= 0),
    -- A list of objects: "min_prompt_tokens", and the prices that differ, named as the columns are.
    -- A tier holds for the whole request whose prompt has at least so many tokens.
    ADD COLUMN tiers                jsonb NOT NULL DEFAULT '[]'
        CHECK (jsonb_typeof(tiers) = 'array' AND jsonb_array_length(tiers) <= 16);

-- The most searches that one request bills without having asked for any.
ALTER TABLE models
    ADD COLUMN unasked_searches integer NOT NULL DEFAULT 0 CHECK (unasked_searches >= 0);

-- The models that a provider lists and that are not offered, as its last listing has them.
CREATE TABLE withheld_models (
    provider      text NOT NULL,
    model_id      text NOT NULL CHECK (length(model_id) BETWEEN 1 AND 200),
    reason        text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (provider, model_id)
);
