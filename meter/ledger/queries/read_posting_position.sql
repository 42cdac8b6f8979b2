-- The youngest position that a posting or usage record may have by now, committed or not.
SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS seq FROM postings_position
