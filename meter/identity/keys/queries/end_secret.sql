-- Makes the present secret of a key expire after some seconds.
UPDATE credential_secrets SET ends_at = clock_timestamp() + make_interval(secs => $2)
WHERE credential_id = $1 AND ends_at IS NULL
