-- Adds the settlements of the batches after $1, up to $2, to the totals by day: see the migrations.
SELECT add_up_settlements($1, $2, '-infinity', 'infinity')
