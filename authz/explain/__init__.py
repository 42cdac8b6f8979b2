"""What a decision would be, and why, without any effect."""
