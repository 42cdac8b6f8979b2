-- The terms under which credit is sold.
SELECT least_picos, most_picos, is_taxed, takes_promotion_codes, makes_invoices, credit_days
FROM selling_terms
