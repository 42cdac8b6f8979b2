-- Ends look-ups that have nothing left to find out.
DELETE FROM lookups WHERE hold_id = ANY ($1::uuid[])
