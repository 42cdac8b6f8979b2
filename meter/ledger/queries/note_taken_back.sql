-- Notes that the house has so much of a write-off back.
UPDATE write_offs SET taken_back_picos = taken_back_picos + $2 WHERE id = $1
