"""More providers beside OpenRouter in the fault campaign, and accounts with keys of their own."""
