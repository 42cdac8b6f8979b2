-- Switches an account's automatic top-ups off.
DELETE FROM auto_top_ups WHERE account_id = $1 RETURNING account_id
