-- The first checkpoint of a ledger has no batch: it seals what is in none, the totals of dropped months
-- and usage of before batches were noted. The batches of before follow in chunks, as all others.
-- Settlements of a month whose usage was dropped are in its totals, and are taken from them, because
-- each chunk adds its own. No row of history is rewritten.
CREATE OR REPLACE FUNCTION sums_of_books(up_to bigint) RETURNS TABLE (
    account_id text, customer numeric, charged numeric, credited numeric, cost numeric,
    over numeric, used_charge numeric, used_cost numeric
) LANGUAGE sql STABLE AS $$
    SELECT r.account_id, sum(r.customer), sum(r.charged), sum(r.credited), sum(r.cost),
           sum(r.over), sum(r.used_charge), sum(r.used_cost)
    FROM (
        SELECT b.account_id, b.customer, b.charged, b.credited, b.cost, b.over, b.used_charge,
               b.used_cost
        FROM sums_of_batches(-1, up_to) b
        UNION ALL
        SELECT u.account_id, 0, 0, 0, 0, 0, u.charge_picos, u.provider_cost_picos
        FROM usage_rows u WHERE u.batch IS NULL
        UNION ALL
        SELECT u.account_id, 0, 0, 0, 0, 0, u.charge_picos, u.provider_cost_picos
        FROM sealed_usage u
        UNION ALL
        SELECT k.account_id, 0, 0, 0, 0, 0, k.customer_picos, -k.provider_picos
        FROM kept_settlements k
        UNION ALL
        SELECT e.account_id,
               CASE WHEN e.ledger_account = 'customer' THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND e.template IN (
                        'settlement', 'excess', 'reversal', 'correction')
                    THEN -e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND e.template NOT IN (
                        'settlement', 'excess', 'reversal', 'correction')
                    THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'provider' THEN e.amount_picos ELSE 0 END,
               CASE WHEN e.ledger_account = 'customer' AND e.template IN (
                        'excess', 'correction', 'payment_reversal')
                    THEN e.taken_picos ELSE 0 END, 0, 0
        FROM sealed_entries e
    ) r
    GROUP BY r.account_id
$$;
