-- Gives a webhook back that is locked; it is due while messages wait.
UPDATE webhooks w SET taken_by = NULL, taken_until = NULL,
    is_due = EXISTS (SELECT FROM webhook_messages m
                     WHERE m.webhook_id = w.id AND m.state = 'waiting')
WHERE w.id = $1
