-- V3: at most one settlement and one excess posting per hold, and each names its hold.
SELECT coalesce(hold_id::text, min(id::text)) AS id FROM postings
WHERE template IN ('settlement', 'excess')
GROUP BY hold_id, template HAVING count(*) > 1 OR hold_id IS NULL
