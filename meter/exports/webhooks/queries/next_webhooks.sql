-- The last of the next $2 webhooks after the id $1; NULL where there is none.
SELECT max(p.id) FROM (SELECT id FROM webhooks WHERE id > $1 ORDER BY id LIMIT $2) p
