-- The provider's last refusal of a key, of the check or of requests; all null while it works.
ALTER TABLE provider_keys
    ADD COLUMN refused_at timestamptz,
    ADD COLUMN refused_status integer,
    ADD COLUMN refused_reason text,
    ADD CONSTRAINT provider_keys_refusal_is_whole
        CHECK ((refused_at IS NULL) = (refused_status IS NULL)
           AND (refused_at IS NULL) = (refused_reason IS NULL));
