-- Ends holds without a charge, for one reason; returns how many were still live.
SELECT release_holds($1, $2)
