-- Locks the names against other changes until the commit; requests still read them.
LOCK TABLE model_aliases IN SHARE ROW EXCLUSIVE MODE
