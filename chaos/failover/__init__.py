"""A route over three providers that fail at random, and the books compared with their bills."""
