"""Routes for API keys and passes: an account's own, and those of users."""
