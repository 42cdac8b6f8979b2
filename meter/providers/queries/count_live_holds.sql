-- Requests that are not settled yet and whose hold has a price of this provider, up to $2.
SELECT count(*) FROM (
    SELECT FROM holds h JOIN prices p ON p.id = h.price_id WHERE p.provider = $1 LIMIT $2
) AS live
