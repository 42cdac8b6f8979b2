-- The providers that requests may go to.
SELECT id, dialect FROM providers WHERE state = 'enabled' ORDER BY id
