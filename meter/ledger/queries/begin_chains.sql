-- The positions and hashes of the chains before their first batch.
SELECT array_agg(0::bigint ORDER BY id) AS positions,
       array_agg(first_hash(id::smallint) ORDER BY id) AS hashes
FROM generate_series(1, 32) AS id
