-- Appends the usage records of a batch.
INSERT INTO usage_rows (
    hold_id, placed_at, revision, kind, account_id, credential_id, model_id, endpoint,
    generation_id, started_at, prompt_tokens, completion_tokens, cached_tokens,
    cache_write_tokens, reasoning_tokens, provider_cost_picos, charge_picos, excess_picos,
    markup_bps, price_id, price_source, latency_ms, time_to_first_byte_ms, status_code,
    response_flags, is_streaming, source, own_key_cost_picos, batch)
SELECT * FROM unnest(
    $1::uuid[], $2::timestamptz[], $3::smallint[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::timestamptz[], $11::bigint[], $12::bigint[], $13::bigint[],
    $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::integer[],
    $20::bigint[], $21::text[], $22::integer[], $23::integer[], $24::integer[], $25::text[],
    $26::boolean[], $27::text[], $28::bigint[], $29::bigint[])
