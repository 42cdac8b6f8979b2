-- Ends what moved the lots of an account: see close_lots() in the migrations.
SELECT close_lots($1)
