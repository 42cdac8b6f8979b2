-- Notes that a sink has an account.
INSERT INTO sink_accounts (sink_id, account_id) VALUES ($1, $2) ON CONFLICT DO NOTHING
