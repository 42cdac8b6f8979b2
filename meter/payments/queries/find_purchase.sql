-- A purchase by its id.
SELECT * FROM purchases WHERE id = $1
