-- Notes that requests ended without usage; their holds stay until it is known.
UPDATE holds h SET
    state = 'unknown', unknown_reason = k.reason, generation_id = k.generation_id,
    status_code = k.status_code, response_flags = k.response_flags
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[])
    AS k (id, reason, generation_id, status_code, response_flags)
WHERE h.id = k.id AND h.state = 'open'
