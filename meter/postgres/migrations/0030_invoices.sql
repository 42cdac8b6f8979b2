-- Whether Stripe makes an invoice of each purchase of credit; a receipt is sent in any case.
ALTER TABLE selling_terms ADD COLUMN makes_invoices boolean NOT NULL DEFAULT false;
