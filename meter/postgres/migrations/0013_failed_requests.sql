-- Holds that a policy ended without a charge, because the request failed and the provider had no
-- record of it; listed beside those of `ended_holds_not_billed`.
CREATE INDEX ended_holds_failed ON ended_holds (placed_at, id) WHERE reason = 'failed';
