"""OpenRouter's dialect: catalogue, records of generations, totals, reports."""

from typing import Final

from meter.pricing.prices import DEFAULT_PROVIDER

ID: Final = DEFAULT_PROVIDER
BASE_URL: Final = "https://openrouter.ai/api/v1"
