"""The number of tokens that a request to `/v1/messages` has, before it is sent. It is free.

OpenRouter has no such endpoint, and the tokenizers of most models are not public. So the answer is
an estimate from the bytes of the request, and says so. Tools of Anthropic's clients ask for it to
know when a conversation must be shortened.
"""

import re
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from meter.api.authentication import Caller, WithKey, caller_with
from meter.api.problems import ProblemError
from meter.scopes import Scope

# Of English text and source code, tokens of Claude have some 3.5 bytes.
BYTES_PER_TWO_TOKENS: Final = 7
TOKENS_PER_MESSAGE: Final = 4
TOKENS_FOR_TOOLS: Final = 346
# An image of the largest size that is not made smaller before the model sees it.
TOKENS_PER_IMAGE: Final = 1_600
# A page of a document is some 2,000 tokens, and some 64 KiB of base64.
BYTES_PER_PAGE: Final = 65_536
TOKENS_PER_PAGE: Final = 2_000
_INLINE: Final = re.compile(rb'"data"\s*+:\s*+"([A-Za-z0-9+/=_\\-]{256,}+)"')
# The beginning of a PDF in base64; what begins otherwise is an image.
_PDF: Final = b"JVBERi"
_AT_URL: Final = re.compile(rb'"type"\s*+:\s*+"url"')

router = APIRouter(tags=["Inference"], dependencies=WithKey)


class TokenCountReply(BaseModel):
    """The tokens of a prompt; `is_estimate` says that no tokenizer counted them."""

    input_tokens: int = Field(examples=[2095])
    is_estimate: bool = True


class _MessageToCount(msgspec.Struct):
    """The members that a request must have. What they hold is counted by its bytes."""

    model: str
    messages: msgspec.Raw
    tools: msgspec.Raw = msgspec.Raw(b"null")


_DECODER: Final = msgspec.json.Decoder(_MessageToCount)
_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "description": "A request as `/v1/messages` takes it, without `max_tokens`.",
                "type": "object",
                "required": ["model", "messages"],
                "properties": {
                    "model": {"type": "string", "examples": ["anthropic/claude-sonnet-4.5"]},
                    "messages": {"type": "array", "items": {"type": "object"}},
                },
            }
        }
    },
}


@router.post(
    "/v1/messages/count_tokens",
    summary="Estimate the tokens of a message",
    openapi_extra={"requestBody": _BODY},
)
async def count_message_tokens(
    request: Request,
    _caller: Annotated[Caller, Depends(caller_with(Scope.INFERENCE))],
) -> TokenCountReply:
    """Estimate the tokens of a request to `/v1/messages` from its bytes; at most 1 MiB."""
    body = await request.body()
    try:
        asked = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise ProblemError(400, "invalid_value", f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise ProblemError(400, "invalid_json", "the body is not valid JSON") from None
    if not bytes(asked.messages).startswith(b"["):
        raise ProblemError(400, "invalid_value", "'messages' must be a list")
    has_tools = bytes(asked.tools).startswith(b"[")
    return TokenCountReply(input_tokens=estimate_tokens(body, has_tools))


def estimate_tokens(body: bytes, has_tools: bool) -> int:
    """Return the estimate for a body, all of whose bytes are looked at by calls in C alone."""
    tokens = TOKENS_PER_MESSAGE * body.count(b'"role"') + (TOKENS_FOR_TOOLS if has_tools else 0)
    text_bytes = len(body)
    for inline in _INLINE.findall(body):
        text_bytes -= len(inline)
        is_document = inline.startswith(_PDF)
        pages = -(-len(inline) // BYTES_PER_PAGE)
        tokens += pages * TOKENS_PER_PAGE if is_document else TOKENS_PER_IMAGE
    tokens += len(_AT_URL.findall(body)) * TOKENS_PER_IMAGE
    return tokens - (-text_bytes * 2 // BYTES_PER_TWO_TOKENS)
