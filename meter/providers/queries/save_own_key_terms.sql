-- Stores the terms by which an account uses its own keys. The caller holds the lock of the account.
INSERT INTO own_key_terms (account_id, mode, may_fall_back_to_credit) VALUES ($1, $2, $3)
ON CONFLICT (account_id) DO UPDATE SET
    mode = excluded.mode, may_fall_back_to_credit = excluded.may_fall_back_to_credit
