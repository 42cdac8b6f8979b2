-- Ends holds without a charge, for one reason; returns how many that ended, and how many another
-- transaction keeps locked.
SELECT released, locked FROM release_free_holds($1, $2)
