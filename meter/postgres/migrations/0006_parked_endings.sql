-- Settlements of a locked account wait apart, so that they delay no other account.

-- Endings whose hold or account another transaction keeps locked. An ending that is here counts as
-- received: the reader of a log may move on. It is settled as soon as the rows are free. The account
-- is empty where the hold is not in the books.
CREATE TABLE parked_endings (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_id    uuid NOT NULL,
    account_id text NOT NULL,
    observed   jsonb NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX parked_endings_account ON parked_endings (account_id, id);

-- Locks accounts in the order in which everybody locks them, and returns those that it left out:
-- doubtful ones that another transaction keeps locked. It waits for the others, 200 ms at most for
-- each; then Postgres raises lock_not_available (55P03).
CREATE FUNCTION lock_accounts(account_ids text[], doubtful text[]) RETURNS text[]
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    account text;
    locked  text[] := '{}';
BEGIN
    FOR account IN SELECT a.id FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id LOOP
        IF account = ANY (doubtful) THEN
            PERFORM 1 FROM accounts a WHERE a.id = account FOR NO KEY UPDATE SKIP LOCKED;
            IF NOT FOUND THEN
                locked := locked || account;
            END IF;
        ELSE
            PERFORM 1 FROM accounts a WHERE a.id = account FOR NO KEY UPDATE;
        END IF;
    END LOOP;
    RETURN locked;
END $$;

-- As before, but it waits 200 ms at most for each account; then Postgres raises lock_not_available.
CREATE OR REPLACE FUNCTION move_balances(
    account_ids text[], charges bigint[], freed bigint[], excesses bigint[]
) RETURNS void LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
BEGIN
    PERFORM 1 FROM accounts a WHERE a.id = ANY (account_ids) ORDER BY a.id FOR NO KEY UPDATE;
    UPDATE accounts a SET
        balance_picos = a.balance_picos - m.charge,
        held_picos = a.held_picos - m.freed,
        overdrawn_picos = least(
            a.overdrawn_picos + m.excess,
            greatest(0, (a.held_picos - m.freed) - (a.balance_picos - m.charge)))
    FROM unnest(account_ids, charges, freed, excesses) AS m (account_id, charge, freed, excess)
    WHERE a.id = m.account_id;
END $$;

-- Ends holds without a charge, and passes over those that another transaction keeps locked, or
-- whose account it does; `locked` is how many of those are live still. Where all are of one account,
-- it waits for that account as move_balances() does.
CREATE FUNCTION release_free_holds(
    hold_ids uuid[], reason text, OUT released bigint, OUT locked bigint
) LANGUAGE plpgsql AS $$
DECLARE
    free_holds    uuid[];
    owners        text[];
    free_accounts text[];
BEGIN
    SELECT array_agg(h.id), array_agg(DISTINCT h.account_id) INTO free_holds, owners
    FROM (SELECT id, account_id FROM holds WHERE id = ANY (hold_ids)
          ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) h;
    free_accounts := owners;
    IF cardinality(owners) > 1 THEN
        SELECT array_agg(a.id) INTO free_accounts
        FROM (SELECT id FROM accounts WHERE id = ANY (owners)
              ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) a;
    END IF;
    SELECT array_agg(h.id) INTO free_holds FROM holds h
    WHERE h.id = ANY (free_holds) AND h.account_id = ANY (free_accounts);
    released := release_holds(coalesce(free_holds, '{}'), reason);
    SELECT count(*) INTO locked FROM holds h WHERE h.id = ANY (hold_ids);
END $$;
