-- Up to which instant events were listed.
SELECT listed_up_to FROM stripe_sweeps WHERE is_live = $1
