"""OpenRouter's dialect: catalogue, records of generations, totals, reports."""

from typing import Final

from meter.pricing.prices import DEFAULT_PROVIDER

ID: Final = DEFAULT_PROVIDER
ONLINE_SUFFIX: Final = ":online"
# These say how to route to a listed model. `:free` and others are models of their own.
ROUTING_SUFFIXES: Final = (ONLINE_SUFFIX, ":nitro", ":floor")
BASE_URL: Final = "https://openrouter.ai/api/v1"
