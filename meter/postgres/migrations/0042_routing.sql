-- Routes and names of models.

-- The providers that serve the models of a pattern. Without a route a model is served by OpenRouter,
-- where OpenRouter lists it, else by the provider that offers it.
CREATE TABLE routes (
    id         text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9_-]{0,39}$'),
    -- An id of a model, or a pattern with *, ? or [. An id takes precedence over patterns.
    pattern    text NOT NULL UNIQUE CHECK (length(pattern) BETWEEN 1 AND 256),
    -- Patterns are tried in this order, the lowest first; equal ones in the order of their ids.
    position   integer NOT NULL CHECK (position BETWEEN 0 AND 1000000),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE route_providers (
    route_id text NOT NULL REFERENCES routes (id) ON DELETE CASCADE,
    -- A provider that a route needs cannot be deleted.
    provider text NOT NULL REFERENCES providers (id),
    -- Providers with the lowest number are asked first; those of one number share by weight.
    priority integer NOT NULL CHECK (priority BETWEEN 0 AND 7),
    weight   integer NOT NULL CHECK (weight BETWEEN 1 AND 100),
    PRIMARY KEY (route_id, provider)
);

-- Names that administrators give to models.
CREATE TABLE model_aliases (
    name        text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 256),
    model_id    text NOT NULL REFERENCES models (id),
    -- Whether the name is that of a model which its provider retires: it means the other model only
    -- once nobody offers a model of this name.
    is_redirect boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (name <> model_id)
);
