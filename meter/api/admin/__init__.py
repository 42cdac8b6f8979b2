"""Routes for administrators, one resource per file."""
