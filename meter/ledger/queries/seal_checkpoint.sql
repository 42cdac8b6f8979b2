-- Adds the batches up to $1 to the sums by account, and seals them: see the migrations.
SELECT seal_checkpoint($1)
