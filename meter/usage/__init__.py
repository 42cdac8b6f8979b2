"""Usage records: what requests used, and totals of it."""
