"""The border to Postgres: pools, named queries, migrations."""
