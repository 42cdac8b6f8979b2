-- Notes that an amount of a lot has expired: see expire_lot() in the migrations.
SELECT expire_lot($1, $2, $3)
