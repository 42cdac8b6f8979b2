-- The last batch whose settlements are in the totals by day; no row while another meter adds up.
SELECT batch FROM usage_position FOR UPDATE SKIP LOCKED
