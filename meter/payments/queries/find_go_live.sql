-- The state of going live in a mode: its purchase, the payment, and the events that came for both
-- by the webhook.
SELECT g.purchase_id, g.passed_at, g.passed_by, b.account_id, b.session_id, b.state,
       p.id AS payment_id, p.credited_picos,
       (SELECT count(*) FROM stripe_events e
        WHERE e.source = 'webhook' AND e.state = 'done'
          AND e.object_id IN (b.session_id, p.id)) AS events_by_webhook
FROM go_lives g
JOIN purchases b ON b.id = g.purchase_id
LEFT JOIN payments p ON p.purchase_id = b.id
WHERE g.is_live = $1
