"""Hands out the books: files, usage to other systems, events to customers."""
