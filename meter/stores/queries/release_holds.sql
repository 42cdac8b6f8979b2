-- Ends holds without a charge; returns how many were still open.
SELECT release_holds($1)
