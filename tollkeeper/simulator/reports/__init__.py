"""Reports of finished generations (OpenRouter Broadcast)."""
