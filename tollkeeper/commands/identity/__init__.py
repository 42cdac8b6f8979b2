"""Commands about credentials: keys, passes, identities, issuers, signing keys."""
