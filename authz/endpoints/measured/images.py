"""POST /images: pictures of a text, in OpenRouter's form, and in OpenAI's (`images/generations`).

A picture is billed whole, as tokens at the model's price of a picture, or by the picture. No limit
can be written into the body: the model may think as long as it can beside its pictures.
"""

import re
from typing import Any, Final

from authz.decision import Deny, Refused
from authz.endpoints.body import Body, read_body
from authz.endpoints.demand import IMAGE_TOKENS
from authz.endpoints.edits import edit_for_provider
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.members import count, invalid, refuse_misspelt, refuse_unknown, unbounded
from authz.endpoints.prompt import Prompt
from meter.pricing.prices import (
    MEDIA_REPLY_TOKENS,
    NO_WORK,
    PROMPT_OVERHEAD_TOKENS,
    Demand,
    Extra,
    ProviderWork,
)
from meter.usage.endpoints import IMAGES as NAME

MAX_PICTURES: Final = 10
MAX_REFERENCES: Final = 16
MAX_SIDE_PIXELS: Final = 8_192
# The sides of the squares that have as many pixels as a named size.
TIER_SIDES: Final = {"512": 512, "1K": 1_024, "2K": 2_048, "4K": 4_096}
# Pictures of other shapes have up to 4 % more pixels than their square.
SHAPE_PERCENT: Final = 125
# The dearest model that is documented has 3,968 tokens for a million pixels (6,240 for 1024x1536).
PICTURE_TOKENS_PER_KILOPIXEL: Final = 4
MAX_PREVIEWS: Final = 3
# The previews that a stream may have, of 100 tokens each.
PREVIEW_TOKENS: Final = 1_024

_COST_MEMBERS: Final = frozenset(
    {
        *("model", "prompt", "n", "size", "resolution", "provider", "input_references", "stream"),
        "partial_images",
    }
)
# They shape a picture, whose dearest form is assumed, or say how it travels.
_HARMLESS_MEMBERS: Final = frozenset(
    {
        *("aspect_ratio", "quality", "style", "background", "seed", "user", "moderation"),
        *("output_format", "output_compression", "response_format"),
    }
)
# `options` are the provider's own parameters, which may cost.
_PROVIDER_MEMBERS: Final = frozenset({"only", "ignore", "order", "sort", "allow_fallbacks"})
_REFERENCE_MEMBERS: Final = frozenset({"type", "image_url"})
_PIXELS: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)
_ONLINE: Final = "Nobody documents what a search costs here. Leave ':online' out of the name."
_PROVIDER_OPTIONS: Final = "They are the provider's own parameters. Leave them out."


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded."""
    members = body.members
    try:
        if is_online:
            raise unbounded("model", _ONLINE)
        refuse_misspelt(members, _COST_MEMBERS)
        refuse_unknown(members, _COST_MEMBERS | _HARMLESS_MEMBERS)
        provider = members.get("provider") or {}
        if not isinstance(provider, dict):
            raise invalid("provider", "an object")
        if provider.get("options") is not None:
            raise unbounded("provider.options", _PROVIDER_OPTIONS)
        refuse_unknown(provider, _PROVIDER_MEMBERS, "provider.")
        if not isinstance(members.get("prompt"), str):
            raise invalid("prompt", "a text")
        pictures = count(members, "n", MAX_PICTURES) or 1
        if members.get("partial_images") != 0:
            count(members, "partial_images", MAX_PREVIEWS)
        pixels = max(_read_pixels(members, "size"), _read_pixels(members, "resolution"))
        prompt = _measure_references(members.get("input_references"), body)
    except Refused as refused:
        return refused.deny
    tokens = -(-pixels * SHAPE_PERCENT * PICTURE_TOKENS_PER_KILOPIXEL // 100_000)
    # Some providers are asked once for each picture.
    text_tokens = body.size_bytes - prompt.inline_bytes + PROMPT_OVERHEAD_TOKENS
    return Demand(
        pictures * (text_tokens + prompt.images * IMAGE_TOKENS),
        0,
        choices=pictures,
        extra_completion_tokens=max(tokens, MEDIA_REPLY_TOKENS) + PREVIEW_TOKENS,
        images=pictures * prompt.images,
        prompts=pictures,
        extras=frozenset({Extra.PICTURE_REPLY}),
        work=NO_WORK if pictures == 1 else ProviderWork(calls=pictures),
    )


def _read_pixels(members: dict[str, Any], name: str) -> int:
    """Return the pixels of a size, or 0 where the provider chooses one. Raises Refused."""
    size = members.get(name)
    if size in (None, "auto"):
        return 0
    if isinstance(size, str) and size in TIER_SIDES:
        return TIER_SIDES[size] ** 2
    sides = _PIXELS.fullmatch(size) if isinstance(size, str) else None
    if sides is None or max(width := int(sides[1]), height := int(sides[2])) > MAX_SIDE_PIXELS:
        raise invalid(
            name,
            "'512', '1K', '2K', '4K', 'auto', or width and height in pixels such as '1024x1536',"
            f" up to {MAX_SIDE_PIXELS} each",
        )
    return width * height


def _measure_references(references: object, body: Body) -> Prompt:
    """Measure the pictures that guide the new ones. Raises Refused."""
    prompt = Prompt(body.inline_chars)
    if references is None:
        return prompt
    if not isinstance(references, list) or len(references) > MAX_REFERENCES:
        raise invalid("input_references", f"a list of at most {MAX_REFERENCES} images")
    for reference in references:
        image = reference.get("image_url") if isinstance(reference, dict) else None
        if not isinstance(image, dict) or not reference.keys() <= _REFERENCE_MEMBERS:
            raise invalid("input_references", "a list of parts of type 'image_url'")
        prompt.add_image(image.get("url"), "input_references.image_url.url")
    return prompt


IMAGES: Final = Endpoint(
    name=NAME,
    paths=("images", "images/generations"),
    read=read_body,
    bound=bound,
    edits=edit_for_provider,
)
