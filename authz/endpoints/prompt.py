"""Measures the parts of a prompt beside text: images, and parts of unknown size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from authz.endpoints.advice import DATA_INSTEAD, FILE_IDS, FILE_PART, PART_TYPES
from authz.endpoints.body import Body
from authz.endpoints.members import (
    asks_long_cache,
    invalid,
    refuse_misspelt,
    refuse_unknown,
    unbounded,
)

_PART_MEMBERS: Final = frozenset({"type", "image_url", "input_audio", "file", "cache_control"})
_URL_MEMBER: Final = frozenset({"url"})
_FILE_MEMBERS: Final = frozenset({"filename", "file_data", "file_id"})
_MESSAGE_MEMBERS: Final = frozenset({"content", "images", "audio", "annotations", "cache_control"})
# A message of these alone, whose content is text, has nothing to measure but its bytes.
_ORDINARY_MEMBERS: Final = frozenset(
    {"role", "content", "name", "tool_call_id", "tool_calls", "refusal"}
)
_TEXT_PARTS: Final = frozenset({"text", "refusal"})
# OpenRouter passes at most so many pictures of a file on to the model.
FILE_IMAGES: Final = 8
_SOUND_PARTS: Final = frozenset({"input_audio", "audio_url"})


@dataclass(slots=True)
class Prompt:
    """The measures of a prompt, counted part by part.

    `inline_bytes` are bytes of the body that are images, not text. `is_opaque` is true when some
    part may hold as much as the model can read. `prompts` is the number of prompts in the body.
    `has_sound` is true when a part is sound, which needs a price of its own; `may_hear` also when a
    part may hold some, as a video does.
    `files` are documents, which the provider may read by recognising characters.
    `inline_chars` has the lengths of URLs that a stand-in replaces (`weight.py`).
    """

    inline_chars: Mapping[str, int] = field(default_factory=dict)
    images: int = 0
    inline_bytes: int = 0
    is_opaque: bool = False
    prompts: int = 1
    has_sound: bool = False
    may_hear: bool = False
    has_long_cache: bool = False
    files: int = 0

    def add_sound(self) -> None:
        """Count a sound: silence is packed so tightly that its bytes bound no tokens."""
        self.has_sound = self.may_hear = self.is_opaque = True

    def add_image(self, url: object, param: str) -> None:
        """Count an image at a URL, which is the member `param`. Raises Refused."""
        if not isinstance(url, str):
            raise invalid(param, "a string")
        self.images += 1
        start = url[:11].lower()
        if start == "data:image/":
            # These bytes of the body are the image itself; an image at another URL has none here.
            self.inline_bytes += self.inline_chars.get(url, len(url))
        elif start.startswith("data:"):
            raise unbounded(param.removesuffix(".url"), DATA_INSTEAD)

    def add_file(self, file: object, param: str) -> None:
        """Count a document. Its bytes are packed, so that they bound no tokens. Raises Refused."""
        if not isinstance(file, dict):
            raise invalid(param, "an object")
        refuse_misspelt(file, _FILE_MEMBERS)
        refuse_unknown(file, _FILE_MEMBERS, f"{param}.")
        if file.get("file_id") is not None:
            # Files in the provider's store belong to whoever owns the provider key.
            raise unbounded(f"{param}.file_id", FILE_IDS)
        if not isinstance(file.get("file_data"), str):
            raise invalid(f"{param}.file_data", "a 'data:' URL or an address")
        self.add_document()

    def add_document(self) -> None:
        """Count a document whose bytes are packed, so that they bound no tokens."""
        self.files += 1
        self.images += FILE_IMAGES
        self.is_opaque = self.may_hear = True

    def add_video(self) -> None:
        """Count a video, or a part that is not known: its size cannot be seen."""
        self.images += 1
        self.is_opaque = self.may_hear = True


def measure_prompt(body: Body) -> Prompt:
    """Measure `messages`, `prompt` and `input`, for a provider may read any. Raises Refused."""
    members = body.members
    prompt = Prompt(body.inline_chars)
    messages = members.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            if isinstance(message.get("content"), str) and message.keys() <= _ORDINARY_MEMBERS:
                continue
            refuse_misspelt(message, _MESSAGE_MEMBERS)
            if message.get("audio") is not None:
                # An earlier reply of the model, which is kept at the provider.
                prompt.add_sound()
            prompt.has_long_cache |= asks_long_cache(message, "messages")
            _measure_content(message.get("content"), prompt)
            # Replies with images come back in the next request under this name.
            _measure_content(message.get("images"), prompt)
            annotations = message.get("annotations")
            for annotation in annotations if isinstance(annotations, list) else ():
                # What an earlier request read in a file, which replaces the file in this one.
                file = annotation.get("file") if isinstance(annotation, dict) else None
                if isinstance(file, dict):
                    _measure_content(file.get("content"), prompt)
    if "prompt" in members or "input" in members:
        prompt.prompts = max(
            _measure_inputs(members.get("prompt"), prompt),
            _measure_inputs(members.get("input"), prompt),
        )
    return prompt


def _measure_inputs(inputs: object, prompt: Prompt) -> int:
    """Return the number of prompts: one text, one list of token ids, or a list of either."""
    if isinstance(inputs, dict):
        _measure_content(inputs.get("content", inputs), prompt)
    if not isinstance(inputs, list):
        return 1
    for item in inputs:
        if isinstance(item, dict):
            _measure_content(item.get("content", item), prompt)
        elif isinstance(item, list):
            _measure_content(item, prompt)
    return max(1, sum(type(item) is not int for item in inputs))


def _measure_content(content: object, prompt: Prompt) -> None:
    """Measure the objects among parts; texts and numbers are bounded by their bytes."""
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if isinstance(part, dict):
            _measure_part(part, prompt)
        elif isinstance(part, list):
            prompt.is_opaque = True


def _measure_part(part: dict[str, Any], prompt: Prompt) -> None:
    refuse_misspelt(part, _PART_MEMBERS)
    prompt.has_long_cache |= asks_long_cache(part, "messages.content")
    kind = part.get("type")
    if not isinstance(kind, str):
        raise unbounded("messages.content", PART_TYPES)
    if kind == "file":
        prompt.add_file(part.get("file"), "messages.content.file")
        return
    if kind == "input_file":
        raise unbounded("messages.content", FILE_PART)
    if kind in _TEXT_PARTS:
        return
    if kind in _SOUND_PARTS:
        prompt.add_sound()
        return
    if kind != "image_url":
        prompt.add_video()
        return
    image = part.get("image_url")
    if isinstance(image, dict):
        refuse_misspelt(image, _URL_MEMBER)
        image = image.get("url")
    prompt.add_image(image, "messages.content.image_url.url")
