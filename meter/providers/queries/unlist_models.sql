-- Unlists the models that a provider's listing defines; its next sync lists them again.
UPDATE models SET is_listed = false, updated_at = clock_timestamp() WHERE is_listed AND source = $1
