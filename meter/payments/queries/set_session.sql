-- Notes the Checkout session of a purchase.
UPDATE purchases SET session_id = $2 WHERE id = $1
