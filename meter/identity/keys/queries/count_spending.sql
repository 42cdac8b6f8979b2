-- Begins or ceases to count a budget of a key whose account the caller has locked.
SELECT count_spending($1, $2, $3)
