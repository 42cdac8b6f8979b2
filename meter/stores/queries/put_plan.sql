-- Makes a plan or changes its terms; tells whether it is new.
INSERT INTO plans (id, name, markup_bps, requests_per_minute) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, markup_bps = excluded.markup_bps,
    requests_per_minute = excluded.requests_per_minute
RETURNING (xmax = 0) AS is_new
