-- The youngest position that a settlement or posting may have by now.
SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS seq FROM postings_position
