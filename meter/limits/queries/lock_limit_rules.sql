-- Locks the limit rules against other changes until the commit; requests still read them.
LOCK TABLE limit_rules IN SHARE ROW EXCLUSIVE MODE
