-- Trusts the estimates of a class again.
DELETE FROM raised_estimates WHERE model_id = $1 AND endpoint = $2 RETURNING factor_bps, excesses
