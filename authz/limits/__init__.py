"""Limits of requests and tokens: counted in Redis, and locally while Redis is away."""
