-- What a provider's listing says and is not believed yet: the loss of many models, or the price of
-- a model that changes by a large factor. A row ends when a listing no longer says so.
CREATE TABLE catalogue_doubts (
    provider      text NOT NULL,
    -- The id of a model, or empty for the whole listing.
    subject       text NOT NULL CHECK (length(subject) <= 200),
    -- Changes with the finding, so that nobody accepts another one than was shown.
    id            uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    finding       text NOT NULL,
    explanation   text NOT NULL CHECK (length(explanation) BETWEEN 1 AND 500),
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_at   timestamptz,
    PRIMARY KEY (provider, subject)
);
