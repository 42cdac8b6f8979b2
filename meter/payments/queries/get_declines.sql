-- The number of times in a row that the card of an account was declined.
SELECT declines FROM auto_top_ups WHERE account_id = $1
