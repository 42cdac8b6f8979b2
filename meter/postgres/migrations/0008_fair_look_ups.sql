-- Look-ups by account, so that accounts take turns however many look-ups one of them has.
-- No account is named '-': a meter of before this migration writes it for a while.
ALTER TABLE lookups ADD COLUMN account_id text NOT NULL DEFAULT '-';

UPDATE lookups l SET account_id = h.account_id FROM holds h WHERE h.id = l.hold_id;
UPDATE lookups l SET account_id = h.account_id FROM ended_holds h
WHERE h.id = l.hold_id AND l.account_id = '-';

CREATE INDEX lookups_account_due ON lookups (account_id, due_at);
-- Nothing asks for all look-ups in the order of time any more.
DROP INDEX lookups_due;
