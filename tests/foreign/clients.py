"""The clients that `make foreign` runs, and what their users expect of each."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.foreign.installing import HERE, NODE, node_modules, python_for

STATUSES: Final = (400, 401, 402, 403, 404, 413, 429, 503)
OPENAI_ERRORS: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    402: "APIStatusError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    413: "APIStatusError",
    429: "RateLimitError",
    503: "InternalServerError",
}


@dataclass(frozen=True, slots=True)
class Client:
    """One client: its program beside this module, and the package whose version is shown."""

    name: str
    package: str
    program: str
    environment: str = "node"
    errors: Mapping[int, str] = field(default_factory=lambda: dict(OPENAI_ERRORS))
    """The class that its users expect for each status; empty where the program provokes none."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """The class of each feature that is known to be refused."""

    def command(self) -> list[str]:
        """Return the command that runs the program, with its environment installed."""
        if self.program.endswith(".mjs"):
            node_modules(self.environment)
            return [str(NODE), str(HERE / "node" / self.program)]
        python = sys.executable
        if self.environment != "tests":
            python = str(python_for(self.environment))
        return [python, str(HERE / "python" / self.program)]

    def version(self) -> str:
        """Return the version of the package that is installed."""
        if self.program.endswith(".mjs"):
            return npm_version(node_modules(self.environment), self.package)
        site = Path(self.command()[0]).parent.parent / "lib"
        wheel = self.package.replace("-", "_")
        found = sorted(site.glob(f"python3.*/site-packages/{wheel}-*.dist-info"))
        return found[0].name.removesuffix(".dist-info").rpartition("-")[2]


def npm_version(modules: Path, package: str) -> str:
    """Return the version of an npm package that is installed."""
    import json

    return str(json.loads((modules / package / "package.json").read_text())["version"])


CLIENTS: Final = (
    Client("openai 3 (Python)", "openai", "run_openai.py", "tests"),
    Client("openai 2 (Python)", "openai", "run_openai.py", "openai2"),
    Client("anthropic (Python)", "anthropic", "run_anthropic.py", "tests"),
    Client("langchain-openai", "langchain-openai", "run_langchain_openai.py", "openai2"),
    Client(
        "langchain-openrouter", "langchain-openrouter", "run_langchain_openrouter.py", "openai2"
    ),
    Client(
        "llama-index-llms-openrouter",
        "llama-index-llms-openrouter",
        "run_llama_index.py",
        "openai2",
    ),
    Client("instructor", "instructor", "run_instructor.py", "openai2"),
    Client("litellm", "litellm", "run_litellm.py", "openai2"),
    Client("pydantic-ai", "pydantic-ai-slim", "run_pydantic_ai.py", "openai3"),
    Client("openai-agents", "openai-agents", "run_openai_agents.py", "openai3"),
    Client("openai (npm)", "openai", "run_openai.mjs"),
    Client("@anthropic-ai/sdk (npm)", "@anthropic-ai/sdk", "run_anthropic.mjs"),
    Client("@openrouter/sdk (npm)", "@openrouter/sdk", "run_openrouter.mjs"),
    Client(
        "ai + @openrouter/ai-sdk-provider (npm)",
        "@openrouter/ai-sdk-provider",
        "run_ai_openrouter.mjs",
    ),
    Client("ai + @ai-sdk/openai (npm)", "@ai-sdk/openai", "run_ai_openai.mjs"),
)
