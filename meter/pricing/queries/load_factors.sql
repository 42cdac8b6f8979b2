-- The factors by which the estimates of models are raised, endpoint by endpoint.
SELECT model_id, endpoint, factor_bps FROM raised_estimates
