-- Ends a purchase. One that was paid stays paid; one that ended unpaid may still be paid. With $4 the
-- webhooks of the account are told that the payment failed.
WITH ended AS (
    UPDATE purchases SET state = $2, reason = $3, ended_at = clock_timestamp()
    WHERE id = $1 AND state <> 'paid' AND state <> $2
    RETURNING id, account_id, kind, amount_picos
), told AS (
    SELECT tell_account(e.account_id, 'payment.failed', 'purchase:' || e.id, json_build_object(
        'kind', e.kind, 'purchase_id', e.id, 'amount', usd(e.amount_picos), 'reason', $3::text)) AS messages
    FROM ended e WHERE $4
)
SELECT e.id, (SELECT sum(t.messages) FROM told t) AS messages FROM ended e
