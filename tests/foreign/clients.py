"""The clients that `make foreign` runs, and what their users expect of each."""

import json
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
NPM_OPENAI_ERRORS: Final = {**OPENAI_ERRORS, 402: "APIError", 413: "APIError"}
ANTHROPIC_ERRORS: Final = {
    **OPENAI_ERRORS,
    402: "PaymentRequiredError",
    413: "ContentTooLargeError",
    503: "ServiceUnavailableError",
}
LANGCHAIN_OPENAI_ERRORS: Final = {
    400: "OpenAIInvalidRequestError",
    401: "OpenAIAuthenticationError",
    402: "APIStatusError",
    403: "OpenAIPermissionDeniedError",
    404: "OpenAIModelNotFoundError",
    413: "APIStatusError",
    429: "OpenAIRateLimitError",
    503: "OpenAIAPIError",
}
LITELLM_ERRORS: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    402: "APIError",
    403: "APIError",
    404: "NotFoundError",
    413: "BadRequestError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
}
PYDANTIC_AI_ERRORS: Final = {
    400: "ModelRequestRejectedError",
    401: "ModelAuthenticationError",
    402: "ModelQuotaExceededError",
    403: "ModelAuthenticationError",
    404: "ModelNotFoundError",
    413: "ModelHTTPError",
    429: "ModelRateLimitError",
    503: "ModelUnavailableError",
}
OPENROUTER_ERRORS: Final = {
    400: "BadRequestResponseError",
    401: "UnauthorizedResponseError",
    402: "PaymentRequiredResponseError",
    403: "ForbiddenResponseError",
    404: "NotFoundResponseError",
    413: "PayloadTooLargeResponseError",
    429: "TooManyRequestsResponseError",
    503: "ServiceUnavailableResponseError",
}
# It judges the limit itself, before it asks.
AI_ERRORS: Final = dict.fromkeys(STATUSES, "APICallError") | {400: "InvalidArgumentError"}
INSTRUCTOR_ERRORS: Final = dict.fromkeys(STATUSES, "InstructorRetryException")


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
    return str(json.loads((modules / package / "package.json").read_text())["version"])


NO_SOUND: Final = "BadRequestError"
"""No model of the simulator lists a price of sound in a prompt."""

CLIENTS: Final = (
    Client(
        "openai 3 (Python)",
        "openai",
        "run_openai.py",
        "tests",
        refused={"chat with sound": NO_SOUND},
    ),
    Client(
        "openai 2 (Python)",
        "openai",
        "run_openai.py",
        "openai2",
        refused={"chat with sound": NO_SOUND},
    ),
    Client("anthropic (Python)", "anthropic", "run_anthropic.py", "tests", ANTHROPIC_ERRORS),
    Client(
        "langchain-openai",
        "langchain-openai",
        "run_langchain_openai.py",
        "openai2",
        LANGCHAIN_OPENAI_ERRORS,
    ),
    Client(
        "langchain-openrouter",
        "langchain-openrouter",
        "run_langchain_openrouter.py",
        "openai2",
        OPENROUTER_ERRORS,
    ),
    Client(
        "llama-index-llms-openrouter",
        "llama-index-llms-openrouter",
        "run_llama_index.py",
        "openai2",
        # It judges the limit itself, before it asks.
        {**OPENAI_ERRORS, 400: "ValidationError"},
    ),
    Client("instructor", "instructor", "run_instructor.py", "openai2", INSTRUCTOR_ERRORS),
    Client("litellm", "litellm", "run_litellm.py", "openai2", LITELLM_ERRORS),
    Client("pydantic-ai", "pydantic-ai-slim", "run_pydantic_ai.py", "openai3", PYDANTIC_AI_ERRORS),
    Client("openai-agents", "openai-agents", "run_openai_agents.py", "openai3"),
    Client("openai (npm)", "openai", "run_openai.mjs", errors=NPM_OPENAI_ERRORS),
    Client(
        "@anthropic-ai/sdk (npm)", "@anthropic-ai/sdk", "run_anthropic.mjs", errors=ANTHROPIC_ERRORS
    ),
    Client(
        "@openrouter/sdk (npm)", "@openrouter/sdk", "run_openrouter.mjs", errors=OPENROUTER_ERRORS
    ),
    Client(
        "ai + @openrouter/ai-sdk-provider (npm)",
        "@openrouter/ai-sdk-provider",
        "run_ai_openrouter.mjs",
        errors=AI_ERRORS,
    ),
    Client("ai + @ai-sdk/openai (npm)", "@ai-sdk/openai", "run_ai_openai.mjs", errors=AI_ERRORS),
)
