-- Keeps others from adding to a month until the commit.
SELECT lock_month($1, $2)
