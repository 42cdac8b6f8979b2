-- The last batch of the next chunk after $1 and up to $2: so many batches that they have $3 postings.
SELECT max(number) FILTER (WHERE before < $3) AS up_to
FROM (SELECT number, sum(postings) OVER (ORDER BY number) - postings AS before
      FROM (SELECT number, postings FROM ledger_batches
            WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3) next_ones) counted
