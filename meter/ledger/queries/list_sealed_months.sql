-- Months of which totals are sealed, or of which usage was dropped.
SELECT month FROM dropped_months WHERE kind = 'usage'
UNION SELECT month FROM sealed_usage
UNION SELECT month FROM sealed_entries
ORDER BY month
