-- Applies charges and frees what was held; see move_balances() in the migrations.
SELECT move_balances($1, $2, $3, $4)
