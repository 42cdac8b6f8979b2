-- Replaces the terms under which credit is sold; returns those before.
UPDATE selling_terms t SET least_picos = $1, most_picos = $2, is_taxed = $3,
    takes_promotion_codes = $4, makes_invoices = $5, credit_days = $6,
    updated_at = clock_timestamp()
FROM (SELECT least_picos, most_picos, is_taxed, takes_promotion_codes, makes_invoices, credit_days
      FROM selling_terms FOR UPDATE) before
RETURNING before.least_picos, before.most_picos, before.is_taxed, before.takes_promotion_codes,
    before.makes_invoices, before.credit_days
