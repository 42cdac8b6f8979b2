-- Deletes old records of keys, audit and conflicts: see the migrations.
SELECT forget_records(clock_timestamp() - make_interval(days => $1), $2)
