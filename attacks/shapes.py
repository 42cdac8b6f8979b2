"""Large bodies of chat requests, of the shapes whose reading costs most."""

import json
from collections.abc import Callable, Mapping
from typing import Final

MANY: Final = 900_000
DEPTH: Final = 100_000
TEXT_BYTES: Final = 10 * 2**20
IMAGE_BYTES: Final = 4 * 2**20
TOOLS: Final = 2_000


def _members() -> str:
    return '"metadata":{' + ",".join(f'"m{n}":1' for n in range(MANY)) + "}"


def _deep() -> str:
    return '"metadata":' + '{"a":' * DEPTH + "1" + "}" * DEPTH


def _text() -> str:
    return f'"user":{json.dumps("word " * (TEXT_BYTES // 5))}'


def _images() -> str:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * IMAGE_BYTES}}
        for _ in range(4)
    ]
    return f'"messages":[{{"role":"user","content":{json.dumps(parts)}}}]'


def _tools() -> str:
    properties = {f"parameter_{n}": {"type": "string", "description": "x" * 80} for n in range(20)}
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"tool_{n}",
                "parameters": {"type": "object", "properties": properties},
            },
        }
        for n in range(TOOLS)
    ]
    return f'"tools":{json.dumps(tools)}'


SHAPES: Final[Mapping[str, Callable[[], str]]] = {
    "many members": _members,
    "deep": _deep,
    "text": _text,
    "images": _images,
    "tool schemas": _tools,
}


def filled(shape: Callable[[], str], model: str) -> bytes:
    """Return a chat request that has a shape in it."""
    content = shape()
    own = "" if content.startswith('"messages"') else '"messages":[{"role":"user","content":"a"}],'
    return f'{{"model":{json.dumps(model)},"max_tokens":8,{own}{content}}}'.encode()
