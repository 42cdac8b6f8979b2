-- Adds the lot of a posting that was booked: see add_lot() in the migrations.
SELECT add_lot($1, $2, $3, $4, $5)
