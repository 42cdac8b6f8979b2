"""Routes with which a caller sees its own account."""
