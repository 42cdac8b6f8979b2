-- Months whose detail was dropped, oldest first.
SELECT kind, month, dropped_at FROM dropped_months ORDER BY kind, month
