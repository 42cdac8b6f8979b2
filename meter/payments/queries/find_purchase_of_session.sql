-- A purchase by its Checkout session.
SELECT * FROM purchases WHERE session_id = $1
