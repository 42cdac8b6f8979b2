"""The bookkeeper: accounts, credentials, prices, usage and money. It knows nothing of doors."""
