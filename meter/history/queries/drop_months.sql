-- Seals what months before $2 add up to and drops them; returns the months dropped.
SELECT drop_months($1, $2)
