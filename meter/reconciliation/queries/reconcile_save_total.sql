-- Stores a total of the provider beside that of the ledger, and the range that follows from both.
INSERT INTO provider_totals (provider, key_version, provider_picos, ledger_picos,
                             outside_least_picos, outside_most_picos)
VALUES ($1, $2, $3, $4, $5, $6)
