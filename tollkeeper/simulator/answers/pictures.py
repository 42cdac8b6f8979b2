"""The replies of OpenRouter's image endpoint: one JSON object, or a stream of events."""

import json
from typing import Final

from tollkeeper.simulator.answers.answering import Answer
from tollkeeper.simulator.answers.pieces import DONE

# A white pixel.
PIXEL_BASE64: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8"
    "/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg=="
)
PICTURE: Final = {
    "type": "image_url",
    "index": 0,
    "image_url": {"url": f"data:image/png;base64,{PIXEL_BASE64}"},
}
_DRAWN: Final = {"b64_json": PIXEL_BASE64, "media_type": "image/png"}


def picture_body(answer: Answer, usage: str) -> bytes:
    """Return the reply with all pictures. ``usage`` is the member as JSON text, with its comma."""
    body = {"created": int(answer.at.timestamp()), "data": [_DRAWN] * len(answer.choices)}
    return f"{json.dumps(body, separators=(',', ':'))[:-1]}{usage}}}".encode()


def picture_events(answer: Answer, usage: str, *, breaks_off: bool) -> list[bytes]:
    """Return the events of a stream: a preview, then each picture, the last one with usage."""
    preview = {
        "type": "image_generation.partial_image",
        "partial_image_index": 0,
        "b64_json": PIXEL_BASE64,
    }
    events = [_event(preview)]
    if breaks_off:
        error = {"message": "Generation failed", "code": "server_error"}
        return [*events, _event({"type": "error", "error": error}), DONE]
    done = {
        "type": "image_generation.completed",
        **_DRAWN,
        "created": int(answer.at.timestamp()),
    }
    last = len(answer.choices) - 1
    events += [_event(done, usage if index == last else "") for index in range(last + 1)]
    return [*events, DONE]


def _event(event: dict[str, object], usage: str = "") -> bytes:
    text = json.dumps(event, separators=(",", ":"))
    return f"data: {text[:-1]}{usage}}}\n\n".encode()
