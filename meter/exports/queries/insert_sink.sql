-- Makes a sink. While all sinks are locked, so that their number is bounded.
INSERT INTO sinks (id, kind, url, event_code, source, plan_code, sealed, key_version, position)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
