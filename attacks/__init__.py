"""Attacks on a whole stack, each beside a bystander who must notice little of it."""
