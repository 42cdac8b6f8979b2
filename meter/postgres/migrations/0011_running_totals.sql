-- Nothing that runs under an account's lock reads history: a new budget is counted from totals by
-- day, and what the rights of keys depend on is found in indexes that ended keys do not grow.

-- Nobody settles until the commit, so that no charge is in neither or in both.
LOCK TABLE usage_records IN SHARE ROW EXCLUSIVE MODE;

-- What a credential was charged for the requests of one day of UTC. It changes under the lock of
-- the account alone, and has at most one row for each day.
CREATE TABLE key_days (
    credential_id text NOT NULL,
    day           date NOT NULL,
    charge_picos  bigint NOT NULL,
    PRIMARY KEY (credential_id, day)
) WITH (fillfactor = 50);

INSERT INTO key_days (credential_id, day, charge_picos)
SELECT credential_id, (placed_at AT TIME ZONE 'UTC')::date, sum(charge_picos)
FROM usage_records GROUP BY 1, 2;

-- Applies charges and frees what was held: to the totals by day, and to the budgets of keys and
-- passes. The caller has the accounts locked. `placed` is when each hold was placed: that is the
-- day and the period it counts in.
CREATE OR REPLACE FUNCTION move_spending(
    subjects text[], placed timestamptz[], charges bigint[], freed bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO key_days AS k (credential_id, day, charge_picos)
    SELECT u.subject, (u.placed AT TIME ZONE 'UTC')::date, sum(u.charge)::bigint
    FROM unnest(subjects, placed, charges) AS u (subject, placed, charge)
    JOIN credentials c ON c.id = u.subject
    WHERE u.charge <> 0
    GROUP BY 1, 2
    ON CONFLICT (credential_id, day)
        DO UPDATE SET charge_picos = k.charge_picos + excluded.charge_picos;
    IF NOT EXISTS (SELECT FROM spending s WHERE s.subject = ANY (subjects)) THEN
        RETURN;
    END IF;
    UPDATE spending s SET
        spent_picos = s.spent_picos + m.charge,
        held_picos = s.held_picos - m.freed
    FROM (
        SELECT u.subject, p.period, period_start(p.period, u.placed) AS starts_on,
               sum(u.charge)::bigint AS charge, sum(u.freed)::bigint AS freed
        FROM unnest(subjects, placed, charges, freed) AS u (subject, placed, charge, freed)
        CROSS JOIN (VALUES ('day'), ('week'), ('month'), ('total')) AS p (period)
        GROUP BY 1, 2, 3
    ) m
    WHERE s.subject = m.subject AND s.period = m.period AND s.starts_on = m.starts_on;
END $$;

-- Begins to count a budget of a key, from the totals by day; without a limit, forgets it. The
-- caller has the key's account locked, so nothing is counted twice.
CREATE OR REPLACE FUNCTION count_spending(key_id text, counted_period text, has_limit boolean)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    since date := period_start(counted_period, clock_timestamp());
    opens timestamptz := since::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF NOT has_limit THEN
        DELETE FROM spending s WHERE s.subject = key_id AND s.period = counted_period;
        RETURN;
    END IF;
    INSERT INTO spending (subject, period, starts_on, spent_picos, held_picos)
    SELECT key_id, counted_period, since,
           coalesce((SELECT sum(k.charge_picos) FROM key_days k
                     WHERE k.credential_id = key_id AND k.day >= since), 0)::bigint,
           coalesce((SELECT sum(h.amount_picos) FROM holds h
                     WHERE h.credential_id = key_id AND h.created_at >= opens), 0)::bigint
    ON CONFLICT DO NOTHING;
END $$;

CREATE INDEX credentials_live_keys ON credentials (account_id)
    WHERE kind = 'key' AND revoked_at IS NULL;
CREATE INDEX credentials_identities ON credentials (account_id, token_issued_at)
    WHERE kind = 'identity';
CREATE INDEX audit_log_suspensions ON audit_log (subject, id) WHERE action = 'key.suspended';
