"""Routes without a credential, or with one of their own."""
