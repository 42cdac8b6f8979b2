"""All dialects by name."""

from collections.abc import Mapping
from typing import Final

from meter.providers.direct import anthropic, google, openai, openai_compatible
from meter.providers.openrouter import provider as openrouter
from meter.providers.provider import Dialect, DialectName

DIALECTS: Final[Mapping[DialectName, Dialect]] = {
    dialect.name: dialect
    for dialect in (
        openrouter.DIALECT,
        openai.DIALECT,
        anthropic.DIALECT,
        google.DIALECT,
        openai_compatible.DIALECT,
    )
}
