-- Ends a look-up that has nothing left to find out, unless it was told meanwhile whom to ask.
DELETE FROM lookups WHERE hold_id = $1 AND generation_id IS NOT DISTINCT FROM $2
