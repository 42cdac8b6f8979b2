-- Moves the lots of the accounts $1 by the charges of requests: see settle_lots() in the migrations.
SELECT settle_lots($1, $2, $3, $4)
