"""Takes each component away under load, and measures what becomes of requests and money."""
