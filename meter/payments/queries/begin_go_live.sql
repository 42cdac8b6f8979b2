-- Notes the purchase that is to prove that all works, in the place of one that was never paid.
INSERT INTO go_lives (is_live, purchase_id) VALUES ($1, $2)
ON CONFLICT (is_live) DO UPDATE SET purchase_id = $2, begun_at = clock_timestamp()
WHERE go_lives.passed_at IS NULL
