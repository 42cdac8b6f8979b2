-- Returns whether the plan, account or key that a limit rule names exists.
SELECT CASE $1
    WHEN 'plan' THEN EXISTS (SELECT FROM plans WHERE id = $2)
    WHEN 'account' THEN EXISTS (SELECT FROM accounts WHERE id = $2)
    WHEN 'key' THEN EXISTS (SELECT FROM credentials WHERE id = $2)
    ELSE true END
