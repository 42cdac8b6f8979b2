-- What requests of a model usually use: a charge by policy is guessed from it. A running statistic
-- of bounded size, written apart from settlements, so that no settlement waits for its rows.
CREATE TABLE usual_uses (
    model_id           text NOT NULL,
    endpoint           text NOT NULL,
    -- '' for the requests of all accounts together.
    account_id         text NOT NULL,
    requests           bigint NOT NULL CHECK (requests > 0),
    -- Cost before markup: what holds allowed for prompts, and what those came to.
    prompt_bound_picos numeric NOT NULL CHECK (prompt_bound_picos >= 0),
    prompt_picos       numeric NOT NULL CHECK (prompt_picos >= 0),
    completion_tokens  numeric NOT NULL CHECK (completion_tokens >= 0),
    updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (model_id, endpoint, account_id)
) WITH (fillfactor = 50);
