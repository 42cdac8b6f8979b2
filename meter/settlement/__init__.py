"""Ends holds with their charge: from observations to postings."""
