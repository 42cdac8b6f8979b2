-- Starts or stops counting a budget of a key. The caller holds the lock of the account.
SELECT count_spending($1, $2, $3)
