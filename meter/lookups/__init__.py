"""Asks the provider for the record of requests whose usage never arrived."""
