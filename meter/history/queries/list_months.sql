-- The months of history that are kept, with their size on disk, and the dropped months, with their
-- sealed sums.
SELECT kind, month, known.bytes, d.dropped_at, d.last_batch
FROM (SELECT h.kind, to_date(right(c.relname, 7), 'YYYY_MM') AS month,
             sum(pg_total_relation_size(c.oid))::bigint AS bytes
      FROM (SELECT parent, kind FROM history_tables()
            UNION ALL SELECT 'kept_settlements', 'ledger') h
      JOIN pg_inherits i ON i.inhparent = h.parent::regclass
      JOIN pg_class c ON c.oid = i.inhrelid
      WHERE h.kind IN ('usage', 'ledger') AND c.relname ~ '_\d{4}_\d{2}$'
      GROUP BY 1, 2) known
FULL JOIN dropped_months d USING (kind, month)
ORDER BY 2, 1
