-- The names and digests of the operator tokens that are accepted.
SELECT name, digest FROM operators ORDER BY name LIMIT $1
