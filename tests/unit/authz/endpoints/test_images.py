"""The bound of pictures; the laws of bounds show that no reply costs more."""

import json
from typing import Any

import pytest

from authz.decision import Deny, Reason
from authz.endpoints.body import Body, parse
from authz.endpoints.demand import IMAGE_TOKENS
from authz.endpoints.measured.images import IMAGES
from meter.pricing.prices import MEDIA_REPLY_TOKENS, Demand, Extra, estimate
from tests.fakes import model
from tests.splices import apply_edits

ASKED = {"model": "acme/brush", "prompt": "A red panda"}
PICTURE = "data:image/png;base64," + "A" * 5_000


def bound(**members: Any) -> Demand | Deny:
    body = parse(json.dumps({**ASKED, **members}).encode())
    assert isinstance(body, Body)
    return IMAGES.bound(body, False)


def demand(**members: Any) -> Demand:
    found = bound(**members)
    assert isinstance(found, Demand), found
    return found


def reference(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_each_picture_is_a_reply_of_its_own_and_reads_the_prompt() -> None:
    one, three = demand(), demand(n=3)
    assert (three.choices, three.prompts) == (3, 3)
    assert three.prompt_tokens == 3 * (one.prompt_tokens + len(', "n": 3'))
    assert one.extras == {Extra.PICTURE_REPLY}
    # Each is a request to the model.
    asked = model(longest=0, completion_picos=0, prompt_picos=0, request_picos=10**9)
    assert estimate(three, [asked], 0, 16).fixed_picos == 3 * 10**9
    # Thinking is not limited, and costs what text costs.
    drawing = model(longest=1_000, completion_picos=2, image_output_picos=8, prompt_picos=0)
    held = estimate(one, [drawing], 0, 16)
    assert held.fixed_picos == 8 * (one.extra_completion_tokens + 1_000 * 2 // 8)


@pytest.mark.parametrize(
    ("members", "least"),
    [
        ({}, 6_240),
        ({"size": "auto", "stream": True, "partial_images": 3}, 6_240 + 300),
        ({"size": "1024x1536"}, 6_240),
        ({"size": "2K"}, 17_000),
        ({"resolution": "4K", "aspect_ratio": "21:9"}, 67_000),
        ({"size": "4096x4096"}, 67_000),
    ],
)
def test_a_larger_picture_has_more_tokens(members: dict[str, Any], least: int) -> None:
    assert demand(**members).extra_completion_tokens >= max(least, MEDIA_REPLY_TOKENS)


def test_pictures_that_guide_are_images_of_the_prompt() -> None:
    asked = demand(n=2, input_references=[reference(PICTURE), reference("https://a.example/b")])
    assert asked.images == 4
    assert 4 * IMAGE_TOKENS < asked.prompt_tokens < 4 * IMAGE_TOKENS + 5_000


@pytest.mark.parametrize(
    ("members", "reason", "param"),
    [
        ({"provider": {"options": {"x": {}}}}, Reason.COST_UNBOUNDED, "provider.options"),
        ({"provider": {"max_price": {}}}, Reason.COST_UNBOUNDED, "provider.max_price"),
        ({"steps": 5}, Reason.COST_UNBOUNDED, "steps"),
        ({"prompt": None}, Reason.INVALID_VALUE, "prompt"),
        ({"provider": "x"}, Reason.INVALID_VALUE, "provider"),
        ({"n": 11}, Reason.INVALID_VALUE, "n"),
        ({"N": 2}, Reason.INVALID_VALUE, "N"),
        ({"stream": True, "partial_images": 4}, Reason.INVALID_VALUE, "partial_images"),
        ({"size": "8K"}, Reason.INVALID_VALUE, "size"),
        ({"size": ["1K"]}, Reason.INVALID_VALUE, "size"),
        ({"size": "9000x10"}, Reason.INVALID_VALUE, "size"),
        ({"resolution": 4}, Reason.INVALID_VALUE, "resolution"),
        ({"input_references": {}}, Reason.INVALID_VALUE, "input_references"),
        ({"input_references": [{"url": "x"}]}, Reason.INVALID_VALUE, "input_references"),
        ({"input_references": [reference("x")] * 17}, Reason.INVALID_VALUE, "input_references"),
    ],
)
def test_refuses_what_has_no_bound(members: dict[str, Any], reason: Reason, param: str) -> None:
    refused = bound(**members)
    assert isinstance(refused, Deny), refused
    assert (refused.reason, refused.param) == (reason, param)


def test_no_search_is_asked_for_with_a_picture() -> None:
    body = parse(json.dumps(ASKED).encode())
    assert isinstance(body, Body)
    refused = IMAGES.bound(body, True)
    assert isinstance(refused, Deny)
    assert (refused.reason, refused.param) == (Reason.COST_UNBOUNDED, "model")


def test_nothing_is_written_into_the_body() -> None:
    raw = json.dumps(ASKED).encode()
    body = parse(raw)
    assert isinstance(body, Body)
    assert apply_edits(raw, IMAGES.edits(body, 50, "tag", None, None)) == raw


def test_members_of_openais_client_are_known() -> None:
    from openai.types import image_generate_params as params

    names = set(params.ImageGenerateParamsBase.__annotations__)
    assert isinstance(bound(**dict.fromkeys(names - {"model", "prompt"})), Demand)
