-- Stores new terms of an identity or certificate.
UPDATE credentials SET scopes = $3, allowed_models = $4, allowed_addresses = $5,
       requests_per_minute = $6, tokens_per_minute = $7, concurrent_requests = $8,
       requests_per_day = $9, requests_per_month = $10
WHERE id = $2 AND account_id = $1
