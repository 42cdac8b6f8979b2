-- The chains after the batches after $1, up to $2: $3 and $4 are their positions and hashes before. And
-- the number of entries that these batches signed.
SELECT array_agg(coalesce(b.position, e.place) ORDER BY e.id) AS positions,
       array_agg(coalesce(b.hash, e.hash) ORDER BY e.id) AS hashes,
       (SELECT coalesce(sum(entries), 0)::bigint FROM ledger_batches
        WHERE number > $1 AND number <= $2) AS entries
FROM unnest($3::bigint[], $4::bytea[]) WITH ORDINALITY AS e (place, hash, id)
LEFT JOIN (SELECT DISTINCT ON (chain) chain, coalesce(position, number) AS position, hash
           FROM ledger_batches WHERE number > $1 AND number <= $2
           ORDER BY chain, number DESC) b ON b.chain = e.id
