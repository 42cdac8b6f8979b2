-- Notes up to which instant events were listed; never moves back.
INSERT INTO stripe_sweeps (is_live, listed_up_to) VALUES ($1, $2)
ON CONFLICT (is_live) DO UPDATE SET swept_at = clock_timestamp(),
    listed_up_to = greatest(stripe_sweeps.listed_up_to, excluded.listed_up_to)
