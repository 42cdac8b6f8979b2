-- Records that callers cause without end: ended keys, audit lines and contradicting arrivals. They
-- are deleted in bounded batches once they are older than the operator keeps them.
CREATE INDEX credentials_ended ON credentials (least(revoked_at, expires_at)) WHERE kind = 'key';
CREATE INDEX audit_log_age ON audit_log (at);
CREATE INDEX settlement_conflicts_hold ON settlement_conflicts (hold_id);
CREATE INDEX settlement_conflicts_age ON settlement_conflicts (recorded_at);

-- How often the callers of an account changed something on a day (UTC): a row for each account, so
-- that the bound of changes is read without counting lines.
CREATE TABLE account_changes (
    account_id text PRIMARY KEY,
    day        date NOT NULL,
    changes    integer NOT NULL CHECK (changes > 0)
);

-- No line of the audit log is changed, and lines are deleted by the function below alone, at an age
-- of 90 days or more. Any other statement is refused, the owner's too; the service has no right to
-- delete lines at all.
CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('tollkeeper.forgets', true) = 'audit_log' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE OR REPLACE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept();

-- Deletes at most so many records of each kind that ended or were written before an instant, and
-- returns how many there were. Called by the service, which may delete none of them itself.
--
-- A key goes with its budgets, secrets and last use. Its usage and postings stay: they name it by
-- its id, which is never given again. A key that a pass or a live hold names waits for them. The
-- line of the last suspension of a key stays as long as the key: it tells who may resume it.
CREATE FUNCTION forget_records(before timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    youngest  timestamptz := least(before, clock_timestamp() - interval '90 days');
    batch     integer := least(greatest(most, 0), 10000);
    keys      text[];
    forgotten integer;
    total     integer;
BEGIN
    SELECT array_agg(id) INTO keys FROM (
        SELECT c.id FROM credentials c
        WHERE c.kind = 'key' AND least(c.revoked_at, c.expires_at) < youngest
          AND NOT EXISTS (SELECT FROM passes p WHERE p.credential_id = c.id)
          AND NOT EXISTS (SELECT FROM holds h WHERE h.credential_id = c.id)
        ORDER BY least(c.revoked_at, c.expires_at) LIMIT batch
        FOR UPDATE OF c SKIP LOCKED
    ) over;
    DELETE FROM credential_secrets WHERE credential_id = ANY (keys);
    DELETE FROM credential_uses WHERE credential_id = ANY (keys);
    DELETE FROM spending WHERE subject = ANY (keys);
    DELETE FROM key_days WHERE credential_id = ANY (keys);
    DELETE FROM credentials WHERE id = ANY (keys);
    GET DIAGNOSTICS total = ROW_COUNT;
    PERFORM set_config('tollkeeper.forgets', 'audit_log', true);
    DELETE FROM audit_log WHERE id IN (
        SELECT l.id FROM audit_log l
        WHERE l.at < youngest
          AND NOT (l.action = 'key.suspended' AND EXISTS (
              SELECT FROM credentials c WHERE c.id = substr(l.subject, length('key:') + 1)))
        ORDER BY l.at LIMIT batch);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    PERFORM set_config('tollkeeper.forgets', '', true);
    total := total + forgotten;
    DELETE FROM settlement_conflicts WHERE id IN (
        SELECT id FROM settlement_conflicts WHERE recorded_at < youngest
        ORDER BY recorded_at LIMIT batch);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN total + forgotten;
END $$;

REVOKE EXECUTE ON FUNCTION forget_records(timestamptz, integer) FROM PUBLIC;
