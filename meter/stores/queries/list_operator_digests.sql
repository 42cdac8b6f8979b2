-- The digests of the operator tokens that are accepted.
SELECT digest FROM operators ORDER BY name LIMIT $1
