-- How far an account may stay below zero, and what the house bore beyond that.
ALTER TABLE accounts
    ADD COLUMN max_debt_picos bigint NOT NULL DEFAULT 0 CHECK (max_debt_picos >= 0);

-- The few accounts that charges above holds took below zero.
CREATE INDEX accounts_overdrawn ON accounts (id) WHERE overdrawn_picos > 0;

-- The names of these constraints depend on what the database was made from.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT conrelid::regclass AS owner, conname FROM pg_constraint
        WHERE contype = 'c' AND conparentid = 0
          AND (conrelid = 'postings'::regclass AND pg_get_constraintdef(oid) LIKE '%adjustment%'
            OR conrelid = 'entries'::regclass AND pg_get_constraintdef(oid) LIKE '%adjustments%')
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.owner, found.conname);
    END LOOP;
END $$;
ALTER TABLE postings ADD CONSTRAINT postings_known_template CHECK (template IN (
    'settlement', 'excess', 'reversal', 'correction', 'grant', 'adjustment', 'write_off'));
ALTER TABLE entries ADD CONSTRAINT entries_known_account CHECK (ledger_account IN (
    'customer', 'provider', 'revenue', 'grants', 'adjustments', 'losses'));

CREATE TABLE write_offs (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    posting_id     uuid NOT NULL UNIQUE,
    account_id     text NOT NULL,
    amount_picos   bigint NOT NULL CHECK (amount_picos > 0),
    written_off_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
