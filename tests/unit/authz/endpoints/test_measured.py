"""The bounds of searches, speech and transcriptions, against the simulator's own bill."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.decide import refuse_unpriced
from authz.decision import Deny, Reason
from authz.endpoints.body import Body
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.measured.form import SoundForm
from authz.endpoints.measured.rerank import RERANK
from authz.endpoints.measured.sound import CODEC_GUID, MAX_WAVE_CHUNKS, ROUNDED_SECONDS
from authz.endpoints.measured.speech import SPEECH
from authz.endpoints.measured.transcriptions import TRANSCRIPTIONS
from authz.endpoints.rewriting import Rewrite
from authz.request import AuthRequest
from meter.pricing.prices import Demand, Model, estimate
from tests.fakes import model
from tests.sounds import wav
from tests.splices import apply_edits
from tollkeeper.simulator.answers.measured import MP3_FRAME
from tollkeeper.simulator.measuring import Measure, count_search_units, count_seconds
from tollkeeper.simulator.pricing import Prices, Usage, cost_picos

COHERE = model("cohere/rerank", prompt_picos=0, completion_picos=0, request_picos=2_000_000_000)
BY_TOKEN = model("acme/reranker", prompt_picos=50_000, completion_picos=0)
VOICE = model("acme/voice", prompt_picos=16_000_000, completion_picos=0)
WHISPER = model("acme/whisper", prompt_picos=100_000_000, completion_picos=0)
BOUNDARY = "----form-7e31"


def read(endpoint: Endpoint, body: bytes, content_type: str = "application/json") -> Body | Deny:
    request = AuthRequest("POST", "/", (("content-type", content_type),), body)
    return endpoint.read(request, 2**25)


def bound(endpoint: Endpoint, members: dict[str, Any]) -> Demand | Deny:
    body = read(endpoint, json.dumps({"model": "acme/one", **members}).encode())
    assert isinstance(body, Body), body
    return endpoint.bound(body, False)


def held(endpoint: Endpoint, members: dict[str, Any], offered: Model) -> int:
    demand = bound(endpoint, members)
    assert isinstance(demand, Demand), demand
    assert refuse_unpriced(demand, [offered], False) is None
    amount = estimate(demand, [offered], 0, floor_tokens=16)
    return amount.fixed_picos + amount.per_token_picos * amount.max_tokens


def refusal(found: object) -> tuple[Reason, str | None]:
    assert isinstance(found, Deny), found
    return found.reason, found.param


def prices(offered: Model) -> Prices:
    price = offered.price
    return Prices(price.prompt_picos, price.completion_picos, price.request_picos)


@given(
    query=st.text(min_size=1, max_size=700),
    documents=st.lists(st.text(max_size=3_000), min_size=1, max_size=250),
    density=st.floats(0, 1),
)
def test_no_search_costs_more_than_its_hold(
    query: str, documents: list[str], density: float
) -> None:
    # A tokenizer makes at most one token of a byte.
    asked, *sizes = (int(density * len(text.encode())) for text in (query, *documents))
    members = {"query": query, "documents": documents}
    units = count_search_units(asked, sizes)
    usage = Usage(sum(sizes) + asked * len(sizes), 0, call_count=units)
    for offered in (COHERE, BY_TOKEN):
        assert cost_picos(prices(offered), usage) <= held(RERANK, members, offered)


def test_a_search_of_short_documents_is_held_exactly() -> None:
    members = {"query": "tolls", "documents": ["a bridge"] * 100}
    assert held(RERANK, members, COHERE) == COHERE.price.request_picos
    members["documents"] = ["a bridge"] * 101
    assert held(RERANK, members, COHERE) == 2 * COHERE.price.request_picos


@pytest.mark.parametrize(
    ("members", "reason", "param"),
    [
        ({"documents": ["a"]}, Reason.INVALID_VALUE, "query"),
        ({"query": "a", "documents": []}, Reason.INVALID_VALUE, "documents"),
        ({"query": "a", "documents": [7]}, Reason.INVALID_VALUE, "documents"),
        ({"query": "a", "documents": [{"text": 7}]}, Reason.INVALID_VALUE, "documents"),
        ({"query": "a", "documents": [{"url": "x"}]}, Reason.COST_UNBOUNDED, "documents.url"),
        ({"query": "a", "documents": ["b"], "models": ["c"]}, Reason.COST_UNBOUNDED, "models"),
    ],
)
def test_a_search_without_a_bound_is_refused(
    members: dict[str, Any], reason: Reason, param: str
) -> None:
    assert refusal(bound(RERANK, members)) == (reason, param)


@given(text=st.text(min_size=1, max_size=5_000), instructions=st.none() | st.text(max_size=90))
def test_no_speech_costs_more_than_its_hold(text: str, instructions: str | None) -> None:
    members = {"input": text, "voice": "alloy", "instructions": instructions}
    whole = text + (instructions or "")
    amount = held(SPEECH, members, VOICE)
    for characters in (len(whole), len(whole.encode("utf-16-le")) // 2, len(whole.encode())):
        assert cost_picos(prices(VOICE), Usage(0, 0, unit_count=characters)) <= amount


def test_a_speech_in_ascii_is_held_exactly() -> None:
    assert held(SPEECH, {"input": "x" * 20_000}, VOICE) == 20_000 * VOICE.price.prompt_picos


@pytest.mark.parametrize(
    ("members", "reason", "param"),
    [
        ({}, Reason.INVALID_VALUE, "input"),
        ({"input": "x", "stream_format": "sse"}, Reason.INVALID_VALUE, "stream_format"),
        ({"input": "x", "provider": {"options": {}}}, Reason.COST_UNBOUNDED, "provider"),
        ({"input": "x", "input_references": [{}]}, Reason.COST_UNBOUNDED, "input_references"),
    ],
)
def test_a_speech_without_a_bound_is_refused(
    members: dict[str, Any], reason: Reason, param: str
) -> None:
    assert refusal(bound(SPEECH, members)) == (reason, param)


@pytest.mark.parametrize(
    ("endpoint", "members", "offered"),
    [
        (
            RERANK,
            {"query": "a", "documents": ["b"]},
            model("a/b", prompt_picos=0, completion_picos=0),
        ),
        (SPEECH, {"input": "a"}, model("a/b")),
        (SPEECH, {"input": "a"}, model("a/b", prompt_picos=0, completion_picos=0)),
    ],
)
def test_a_model_without_a_price_of_the_unit_is_refused(
    endpoint: Endpoint, members: dict[str, Any], offered: Model
) -> None:
    demand = bound(endpoint, members)
    assert isinstance(demand, Demand)
    assert refusal(refuse_unpriced(demand, [offered], False)) == (Reason.COST_UNBOUNDED, "model")


def test_a_free_model_needs_no_price() -> None:
    free = model("acme/reranker:free", prompt_picos=0, completion_picos=0)
    assert held(RERANK, {"query": "a", "documents": ["b"]}, free) == 0


def in_json(sound: bytes, named: str) -> dict[str, Any]:
    return {"input_audio": {"data": base64.b64encode(sound).decode(), "format": named}}


def form(*parts: tuple[str, bytes], ending: str = f"--{BOUNDARY}--\r\n") -> bytes:
    text = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for head, content in parts
    )
    return text + ending.encode()


def read_form(body: bytes, content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Any:
    return read(TRANSCRIPTIONS, body, content_type)


MODEL = ('name="model"', b"acme/whisper")
SOUND = ('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', wav(0.5))


@given(
    seconds=st.floats(0.01, 5),
    rate=st.sampled_from([8_000, 16_000, 44_100]),
    channels=st.integers(1, 2),
    sample_bytes=st.integers(1, 4),
    frames=st.integers(1, 500),
)
def test_no_transcription_costs_more_than_its_hold(
    seconds: float, rate: int, channels: int, sample_bytes: int, frames: int
) -> None:
    for sound, named in (
        (wav(seconds, rate, channels, sample_bytes), "wav"),
        (MP3_FRAME * frames, "mp3"),
    ):
        billed = Measure(seconds=count_seconds(sound, named)).billed_units
        cost = cost_picos(prices(WHISPER), Usage(0, 0, unit_count=billed))
        assert cost <= held(TRANSCRIPTIONS, in_json(sound, named), WHISPER)


@pytest.mark.parametrize("kbits", range(1, 15))
@pytest.mark.parametrize("version", [0, 2, 3])
@pytest.mark.parametrize("rate", range(3))
def test_no_bit_rate_of_mp3_outlasts_its_bound(kbits: int, version: int, rate: int) -> None:
    rates = {
        3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    }[3 if version == 3 else 2]
    samples = 1_152 if version == 3 else 576
    hertz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    size = samples // 8 * rates[kbits] * 1_000 // hertz
    header = 0x7FF << 21 | version << 19 | 1 << 17 | 1 << 16 | kbits << 12 | rate << 10
    sound = (header.to_bytes(4, "big") + bytes(size - 4)) * 1_000
    demand = bound(TRANSCRIPTIONS, in_json(sound, "mp3"))
    assert isinstance(demand, Demand)
    # The size of a frame is rounded down to whole bytes.
    assert 1_000 * samples / hertz * 0.99 <= demand.prompt_tokens - ROUNDED_SECONDS


def test_the_length_that_an_mp3_claims_counts() -> None:
    claim = MP3_FRAME[:36] + b"Xing" + b"\0\0\0\1" + (10**6).to_bytes(4, "big") + MP3_FRAME[48:]
    tag = b"ID3\4\0\0\0\0\0\7" + bytes(7)
    demand = bound(TRANSCRIPTIONS, in_json(tag + claim + MP3_FRAME, "mp3"))
    assert isinstance(demand, Demand)
    assert demand.prompt_tokens >= 10**6 * 1_152 // 44_100 + ROUNDED_SECONDS


def changed_wav(**fields: int) -> bytes:
    """A second of sound, whose format says something else."""
    head = {"codec": 1, "channels": 1, "rate": 16_000, "bits": 16, **fields}
    block = head["channels"] * head["bits"] // 8
    chunk = struct.pack(
        "<HHIIHH",
        *(head[name] for name in ("codec", "channels", "rate")),
        head["rate"] * block,
        block,
        head["bits"],
    )
    if "valid" in fields:
        chunk += struct.pack("<HHIH", 22, fields["valid"], 0, 1) + CODEC_GUID
        chunk = (0xFFFE).to_bytes(2, "little") + chunk[2:]
    data = bytes(32_000)
    chunks = b"".join(
        name + len(content).to_bytes(4, "little") + content
        for name, content in ((b"fmt ", chunk), (b"data", data))
    )
    return b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks


@pytest.mark.parametrize(
    "fields", [{"codec": 1}, {"codec": 3, "bits": 32}, {"codec": 7, "bits": 8}, {"valid": 16}]
)
def test_sound_that_all_decoders_read_alike_is_measured(fields: dict[str, int]) -> None:
    demand = bound(TRANSCRIPTIONS, in_json(changed_wav(**fields), "wav"))
    assert isinstance(demand, Demand), demand


@pytest.mark.parametrize(
    "fields",
    [
        # A sample of these is a byte, whatever the header says.
        {"codec": 6, "bits": 64},
        {"codec": 7, "bits": 16},
        {"codec": 3, "bits": 8},
        {"bits": 64, "valid": 8},
    ],
)
def test_sound_that_a_decoder_could_stretch_is_refused(fields: dict[str, int]) -> None:
    found = bound(TRANSCRIPTIONS, in_json(changed_wav(**fields), "wav"))
    assert refusal(found) == (Reason.COST_UNBOUNDED, "input_audio")


def test_the_chunks_of_a_sound_are_bounded() -> None:
    sound = changed_wav()
    empty = b"LIST\0\0\0\0" * (MAX_WAVE_CHUNKS - 2)
    assert isinstance(
        bound(TRANSCRIPTIONS, in_json(sound[:12] + empty + sound[12:], "wav")), Demand
    )
    found = bound(TRANSCRIPTIONS, in_json(sound[:12] + 2 * empty + sound[12:], "wav"))
    assert refusal(found) == (Reason.COST_UNBOUNDED, "input_audio")


CHANGED = bytearray(wav(1))
CHANGED[40:44] = b"\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("members", "reason", "param"),
    [
        ({}, Reason.INVALID_VALUE, "input_audio"),
        (in_json(wav(1), "ogg"), Reason.COST_UNBOUNDED, "input_audio"),
        # What decodes as one kind may be longer as another.
        (in_json(wav(1), "mp3"), Reason.COST_UNBOUNDED, "input_audio"),
        (in_json(MP3_FRAME, "wav"), Reason.COST_UNBOUNDED, "input_audio"),
        (in_json(bytes(CHANGED), "wav"), Reason.COST_UNBOUNDED, "input_audio"),
        (in_json(wav(1, rate=1), "wav"), Reason.COST_UNBOUNDED, "input_audio"),
        (in_json(b"\xff\xfb\x00\x00" + bytes(90), "mp3"), Reason.COST_UNBOUNDED, "input_audio"),
        (
            {"input_audio": {"data": "data:audio/wav;base64,AAAA", "format": "wav"}},
            Reason.INVALID_VALUE,
            "input_audio.data",
        ),
        ({**in_json(wav(1), "wav"), "stream": True}, Reason.INVALID_VALUE, "stream"),
        ({**in_json(wav(1), "wav"), "provider": {}}, Reason.COST_UNBOUNDED, "provider"),
    ],
)
def test_a_transcription_without_a_bound_is_refused(
    members: dict[str, Any], reason: Reason, param: str
) -> None:
    assert refusal(bound(TRANSCRIPTIONS, members)) == (reason, param)


def test_a_form_is_read_as_openai_sends_it() -> None:
    body = form(
        SOUND, MODEL, ('name="timestamp_granularities[]"', b"word"), ('name="prompt"', b"x")
    )
    found = read_form(body)
    assert isinstance(found, SoundForm), found
    assert found.members["model"] == "acme/whisper"
    assert (found.file, found.file_name, found.file_type) == (SOUND[1], "a.wav", "audio/wav")
    demand = TRANSCRIPTIONS.bound(found, False)
    assert isinstance(demand, Demand)
    assert demand.prompt_tokens == 1 + ROUNDED_SECONDS
    edits = TRANSCRIPTIONS.edits(found, None, "tag", None, Rewrite(model="other/name"))
    assert apply_edits(body, edits) == body.replace(b"acme/whisper", b"other/name")
    assert TRANSCRIPTIONS.edits(found, None, "tag", None, None) == ()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"preamble\r\n" + form(SOUND, MODEL), Reason.INVALID_VALUE),
        (form(SOUND, MODEL) + b"more", Reason.INVALID_VALUE),
        (form(SOUND, MODEL, ending=""), Reason.INVALID_VALUE),
        (form(SOUND, MODEL, MODEL), Reason.DUPLICATE_KEY),
        (form(SOUND, SOUND, MODEL), Reason.DUPLICATE_KEY),
        # A reader that takes a bare line feed for the end of a line would find another part.
        (form(('name="model"', f"a\n--{BOUNDARY}\nb".encode()), SOUND), Reason.INVALID_VALUE),
        (form(('name="model"; filename="a"', b"acme/whisper"), SOUND), Reason.INVALID_VALUE),
        (form(("name=model", b"acme/whisper"), SOUND), Reason.INVALID_VALUE),
        (
            form(
                ('name="a"\r\nContent-Transfer-Encoding: base64', b"eA=="),
            ),
            Reason.INVALID_VALUE,
        ),
        (form(('name="prompt"\r\nContent-Length: 1', b"xyz"), SOUND, MODEL), Reason.INVALID_VALUE),
        (form(*[('name="a[]"', b"x")] * 40), Reason.REQUEST_TOO_LARGE),
    ],
)
def test_a_form_that_could_be_read_in_two_ways_is_refused(body: bytes, reason: Reason) -> None:
    assert refusal(read_form(body))[0] is reason


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        f"multipart/form-data; boundary={'x' * 71}",
    ],
)
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    assert refusal(read_form(form(MODEL), content_type))[0] is Reason.UNSUPPORTED_CONTENT_TYPE


def test_a_form_names_its_file_as_it_is() -> None:
    other = ('name="file"; filename="a.mp3"', wav(1))
    named = ('name="file"; filename="a.wav"\r\nContent-Type: audio/mpeg', wav(1))
    for file, reason in ((other, Reason.COST_UNBOUNDED), (named, Reason.INVALID_VALUE)):
        found = read_form(form(MODEL, file))
        assert isinstance(found, SoundForm), found
        assert refusal(TRANSCRIPTIONS.bound(found, False)) == (reason, "file")
