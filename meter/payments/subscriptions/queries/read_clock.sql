-- The time of the database, by which answers of Stripe are put in order.
SELECT clock_timestamp()
