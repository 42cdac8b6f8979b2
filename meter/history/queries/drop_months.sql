-- Seals the sums of the months before $2 and drops these months; returns them.
SELECT drop_months($1, $2)
