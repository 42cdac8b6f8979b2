"""JWTs: reading them strictly, believing few of them, and signing our own (passes)."""
