-- Every usage record has a position from the sequence of postings, so that whoever reads on from a
-- position finds each record once. Records of before this migration that are no settlements have
-- none. No row of history is rewritten: the default is set after the column was added.
ALTER TABLE usage_rows ADD COLUMN seq bigint;
ALTER TABLE usage_rows ALTER COLUMN seq SET DEFAULT nextval('postings_position');

-- One index finds rows by batch and by position, so that a settlement writes no further index.
DROP INDEX settlements_batch, kept_settlements_batch, usage_rows_batch;
CREATE INDEX settlements_batch ON settlements USING brin (batch, seq)
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX kept_settlements_batch ON kept_settlements USING brin (batch, seq)
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX usage_rows_batch ON usage_rows USING brin (batch, seq)
    WITH (pages_per_range = 16, autosummarize = on);
