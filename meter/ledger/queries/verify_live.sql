-- V3: no live hold has been settled.
SELECT 'endings' AS invariant, h.id::text AS id FROM holds h
WHERE EXISTS (SELECT FROM settlements s WHERE s.id = h.id)
