"""OpenRouter's dialect: catalogue, records of generations, totals, reports."""

from typing import Final

ID: Final = "openrouter"
BASE_URL: Final = "https://openrouter.ai/api/v1"
