"""API keys: their text, their terms, what their holders may do with them."""
