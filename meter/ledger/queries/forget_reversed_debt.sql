-- Debt by reversed payments that releases and settlements have covered meanwhile is no more.
UPDATE accounts SET reversed_debt_picos = greatest(0, held_picos - balance_picos)
WHERE id IN (
    SELECT id FROM accounts
    WHERE reversed_debt_picos > 0 AND reversed_debt_picos > greatest(0, held_picos - balance_picos)
    ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)
