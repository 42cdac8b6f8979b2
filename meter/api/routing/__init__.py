"""Routes and names of models."""
