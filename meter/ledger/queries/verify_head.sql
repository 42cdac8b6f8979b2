-- The heads of all chains as one: how many batches there are, and a digest of the youngest of each.
SELECT sum(position)::bigint AS number,
       sha256(string_agg(int2send(id) || int8send(position) || hash, ''::bytea ORDER BY id)) AS hash
FROM ledger_chains HAVING count(*) > 0
