-- Locks the routes against other changes until the commit; requests still read them.
LOCK TABLE routes IN SHARE ROW EXCLUSIVE MODE
