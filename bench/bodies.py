"""CPU of reading a request body, by shape: `python -m bench.bodies`.

Each shape is as large as the limits of `authz/endpoints/weight.py` let it be, or as real requests
become. The work is what a check does: read, bound the cost, and place the edits.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final

from authz.decision import Deny
from authz.endpoints.body import parse
from authz.endpoints.chat import CHAT_COMPLETIONS

ROUNDS: Final = 5
_TAG: Final = "0123456789abcdef" * 2


def _body(content: Any = "Hello", **members: Any) -> bytes:
    messages = [{"role": "user", "content": content}]
    # Each names a trace, so that the edits have to find its place.
    traced = {"trace": {"generation_name": "bench"}, "max_tokens": None}
    return json.dumps({"model": "acme/one", "messages": messages, **traced, **members}).encode()


def text() -> bytes:
    """Return 10 MiB of one text with escapes, as a tool's result in JSON has."""
    return _body('Lorem ipsum "dolor" sit amet,\nconsectetur. ' * 225_000)


def many_members() -> bytes:
    """Return about as many members of one object as a body may have."""
    return _body(metadata={f"name{number}": number for number in range(63_000)})


def deep() -> bytes:
    """Return arrays nested as deep as they may be, again and again."""
    nested = b"[" * 100 + b"]" * 100
    return _body(metadata=None).replace(b"null}", b"[" + b",".join([nested] * 630) + b"]}")


def images() -> bytes:
    """Return 20 MiB of inline images in four parts."""
    url = "data:image/png;base64," + "iVBORw0KGgo/" * 437_000
    return _body([{"type": "image_url", "image_url": {"url": url}}] * 4)


def tool_schemas() -> bytes:
    """Return 1,000 tools of 20 parameters: five times as many as any provider takes."""
    parameter = {"type": "string", "description": "The thing to do it to.", "enum": ["a", "b"]}
    schema = {"type": "object", "properties": {f"p{n}": parameter for n in range(20)}}
    return _body(
        tools=[
            {"type": "function", "function": {"name": f"tool{number}", "parameters": schema}}
            for number in range(1_000)
        ]
    )


SHAPES: Final[Mapping[str, Callable[[], bytes]]] = {
    "text": text,
    "many_members": many_members,
    "deep": deep,
    "images": images,
    "tool_schemas": tool_schemas,
}


def work_on(raw: bytes) -> None:
    """Do to a body what a check does. Raises ValueError where the body is refused."""
    body = parse(raw)
    if isinstance(body, Deny):
        raise ValueError(body.message)
    CHAT_COMPLETIONS.bound(body, False)
    CHAT_COMPLETIONS.edits(body, 100, _TAG, None, None)


def measure_bodies() -> dict[str, Any]:
    """Return size and CPU milliseconds of each shape, and CPU milliseconds for each MiB."""
    return {name: _row(shape()) for name, shape in SHAPES.items()}


def _row(raw: bytes) -> dict[str, float]:
    spent_s = []
    gc.disable()  # As the thread does that works on large bodies.
    for _ in range(ROUNDS):
        began_s = time.process_time()
        work_on(raw)
        spent_s.append(time.process_time() - began_s)
    gc.enable()
    size_mib, cpu_ms = len(raw) / 2**20, median(spent_s) * 1e3
    return {
        "size_mib": round(size_mib, 2),
        "cpu_ms": round(cpu_ms, 1),
        "cpu_ms_per_mib": round(cpu_ms / size_mib, 1),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_bodies(), indent=2) + "\n")
