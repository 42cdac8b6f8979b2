-- V5: no hold is open past its limit, but for the moment that the sweep takes.
SELECT id::text FROM holds
WHERE state = 'open' AND expires_at < clock_timestamp() - interval '1 minute'
