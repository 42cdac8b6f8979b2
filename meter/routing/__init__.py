"""Routes, names of models, and which providers may serve a model."""
