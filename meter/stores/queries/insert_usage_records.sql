-- Appends the usage records of a batch.
INSERT INTO usage_records (
    hold_id, account_id, credential_id, model_id, endpoint, generation_id, started_at,
    prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
    provider_cost_picos, charge_picos, excess_picos, markup_bps, price_id, price_source,
    latency_ms, time_to_first_byte_ms, status_code, response_flags, is_streaming, source)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
    $13::bigint[], $14::bigint[], $15::bigint[], $16::integer[], $17::bigint[], $18::text[],
    $19::integer[], $20::integer[], $21::integer[], $22::text[], $23::boolean[], $24::text[])
