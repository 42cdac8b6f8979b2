-- A posting with its amount, and the balance that its account had right after it.
SELECT p.recorded_at, p.reason, p.template,
       (SELECT coalesce(sum(e.amount_picos), 0) FROM entries e
        WHERE e.posting_id = p.id AND e.ledger_account = 'customer') AS amount_picos,
       (SELECT coalesce(sum(e.amount_picos), 0)
        FROM postings earlier JOIN entries e ON e.posting_id = earlier.id
        WHERE earlier.account_id = p.account_id AND earlier.seq <= p.seq
          AND e.ledger_account = 'customer') AS balance_after_picos
FROM postings p WHERE p.id = $1
