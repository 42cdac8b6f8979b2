"""Dialects of providers that are asked directly, at their OpenAI-shaped endpoints."""
