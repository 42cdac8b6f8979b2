-- Records money that arrived, with the posting that it became.
INSERT INTO payments (id, purchase_id, account_id, is_live, paid_cents, credited_picos, posting_id,
                      receipt_url, paid_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
