"""The dialects of the providers that the simulator stands in for."""

from tollkeeper.simulator.dialects.anthropic import AnthropicDialect
from tollkeeper.simulator.dialects.dialect import ProviderDialect
from tollkeeper.simulator.dialects.google import GoogleDialect
from tollkeeper.simulator.dialects.openai import OpenAIDialect
from tollkeeper.simulator.dialects.openai_compatible import OpenAICompatibleDialect
from tollkeeper.simulator.dialects.openrouter import OpenRouterDialect

OPENROUTER = OpenRouterDialect()
DIALECTS: dict[str, ProviderDialect] = {
    dialect.id: dialect
    for dialect in (
        OPENROUTER,
        OpenAIDialect(),
        AnthropicDialect(),
        GoogleDialect(),
        OpenAICompatibleDialect(),
    )
}
