-- Returns the time of the database, to book at.
SELECT clock_timestamp() AS booked_at
