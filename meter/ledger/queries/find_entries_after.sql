-- The last posting of the next so many entries after posting $1. No row where fewer are left.
SELECT posting_id FROM entry_rows WHERE posting_id > $1 ORDER BY posting_id OFFSET $2 LIMIT 1
