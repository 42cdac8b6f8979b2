"""Plans with their history, and the subscriptions of accounts. See README.md beside this file."""
