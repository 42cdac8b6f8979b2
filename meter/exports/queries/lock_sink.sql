-- A sink, locked until the commit.
SELECT * FROM sinks WHERE id = $1 FOR UPDATE
