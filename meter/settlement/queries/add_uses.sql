-- Adds what requests used to the sums of their model, endpoint and account ('' for all accounts).
-- Sums over more than $8 requests are halved, so that the latest requests count most.
INSERT INTO usual_uses AS u (model_id, endpoint, account_id, requests, prompt_bound_picos,
                             prompt_picos, completion_tokens)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::numeric[],
                     $6::numeric[], $7::numeric[]) AS a (model_id, endpoint, account_id)
ORDER BY model_id, endpoint, account_id
ON CONFLICT (model_id, endpoint, account_id) DO UPDATE SET
    requests = (u.requests + excluded.requests)
        / CASE WHEN u.requests + excluded.requests > $8 THEN 2 ELSE 1 END,
    prompt_bound_picos = trunc((u.prompt_bound_picos + excluded.prompt_bound_picos)
        / CASE WHEN u.requests + excluded.requests > $8 THEN 2 ELSE 1 END),
    prompt_picos = trunc((u.prompt_picos + excluded.prompt_picos)
        / CASE WHEN u.requests + excluded.requests > $8 THEN 2 ELSE 1 END),
    completion_tokens = trunc((u.completion_tokens + excluded.completion_tokens)
        / CASE WHEN u.requests + excluded.requests > $8 THEN 2 ELSE 1 END),
    updated_at = clock_timestamp()
