-- What a later correction showed that an account did not owe, and the house has back.
ALTER TABLE write_offs
    ADD COLUMN taken_back_picos bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT write_offs_taken_back CHECK (taken_back_picos BETWEEN 0 AND amount_picos);

CREATE INDEX write_offs_outstanding ON write_offs (account_id)
    WHERE taken_back_picos < amount_picos;
