-- The terms by which an account uses its own keys, with the fee of its plan.
SELECT coalesce(t.mode, 'prefer') AS mode,
       coalesce(t.may_fall_back_to_credit, false) AS may_fall_back_to_credit,
       p.own_key_fee_bps AS fee_bps
FROM account_plans p LEFT JOIN own_key_terms t ON t.account_id = p.account_id
WHERE p.account_id = $1
