-- Deletes a webhook of an account with its messages.
DELETE FROM webhooks WHERE account_id = $1 AND id = $2 RETURNING url
