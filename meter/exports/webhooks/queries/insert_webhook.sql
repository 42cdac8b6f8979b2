-- Makes a webhook.
INSERT INTO webhooks (id, account_id, url, events, low_balance_picos, budget_percent, sealed)
VALUES ($1, $2, $3, $4, $5, $6, $7)
