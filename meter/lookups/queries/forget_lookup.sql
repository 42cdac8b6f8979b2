-- Deletes a look-up that is no longer needed, unless its generation id has been learnt meanwhile.
DELETE FROM lookups WHERE hold_id = $1 AND generation_id IS NOT DISTINCT FROM $2
