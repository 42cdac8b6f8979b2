"""How the simulator reports finished generations (OpenRouter Broadcast)."""
