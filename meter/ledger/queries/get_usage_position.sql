-- The last batch whose settlements are in the totals by day.
SELECT batch FROM usage_position
