-- Returns whether a paid invoice is recorded.
SELECT true FROM subscription_invoices WHERE id = $1
