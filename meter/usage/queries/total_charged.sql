-- The charges of an account in all: the totals by day, and the settlements that are not in them.
SELECT coalesce((SELECT sum(d.charge_picos) FROM usage_days d WHERE d.account_id = $1), 0)
     + coalesce((
           SELECT -sum(s.customer_picos) FROM settlements s
           WHERE s.account_id = $1
             AND s.seq > (SELECT seq FROM usage_position)
             AND s.batch > (SELECT batch FROM usage_position)), 0)
