-- A payment by an automatic top-up has worked.
UPDATE auto_top_ups SET declines = 0 WHERE account_id = $1
