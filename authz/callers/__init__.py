"""Who asks: from a credential to a principal, and what the principal may do."""
