-- Ends live holds, each with its own ending and reason; returns how many were live.
SELECT end_holds($1, $2, $3)
