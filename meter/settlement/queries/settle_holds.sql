-- Settles live holds with their charge, one row for each: see settle_holds() in the migrations.
SELECT * FROM settle_holds($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
