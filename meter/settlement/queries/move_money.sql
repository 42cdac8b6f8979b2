-- Applies charges and frees held amounts, of accounts and of budgets; returns the accounts that have
-- lots: see the migrations.
SELECT move_money($1, $2, $3, $4, $5, $6, $7, $8)
