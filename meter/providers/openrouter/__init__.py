"""OpenRouter's dialect: catalogue, records of generations, totals, reports."""
