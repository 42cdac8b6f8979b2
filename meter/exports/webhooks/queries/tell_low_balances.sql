-- Tells webhooks with ids after $1, up to $2, of balances that fell below their thresholds. Under the
-- lock of its row, a webhook changes its mind once, whoever else looks.
WITH crossed AS (
    SELECT w.id, a.balance_picos FROM webhooks w JOIN accounts a ON a.id = w.account_id
    WHERE w.id > $1 AND w.id <= $2 AND w.low_balance_picos IS NOT NULL
      AND w.is_low <> (a.balance_picos < w.low_balance_picos)
    ORDER BY w.id FOR NO KEY UPDATE OF w
), turned AS (
    UPDATE webhooks w SET is_low = NOT w.is_low, is_due = w.is_due OR NOT w.is_low
    FROM crossed c WHERE w.id = c.id
    RETURNING w.id, w.is_low, w.low_balance_picos, c.balance_picos
), told AS (
    INSERT INTO webhook_messages (webhook_id, type, cause, body)
    SELECT t.id, 'balance.low', gen_random_uuid()::text,
           webhook_body('balance.low', json_build_object(
               'balance', usd(t.balance_picos), 'threshold', usd(t.low_balance_picos)))
    FROM turned t WHERE t.is_low
    RETURNING 1
)
SELECT count(*) FROM told
