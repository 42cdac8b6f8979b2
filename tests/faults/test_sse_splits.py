"""However a stream is cut and told: settled right, or unknown and looked up; never wrong."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chaos.stack import ChaosStack
from meter.settlement.outcome import PriceSource, Settled, Unknown, UnknownReason
from meter.usage.usage import TokenCounts
from tests.e2e.envoy.envoy_harness import running_gateway
from tests.faults.auditor import Auditor, Expected
from tests.faults.departures import CREDIT_PICOS, Stage, listeners
from tests.faults.splitting import GENERATION, Splitter, cut
from tests.patience import WAIT_S

MIB = 1024 * 1024
USAGE = (
    '{"prompt_tokens":12,"completion_tokens":34,"cost":0.00123456789,"is_byok":false'
    ',"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":2}'
    ',"completion_tokens_details":{"reasoning_tokens":5}}'
)
# 3.33 % on top, rounded up.
TRUTH = Settled(
    TokenCounts(prompt=12, completion=34, cached=3, cache_write=2, reasoning=5),
    cost_picos=1_234_567_890,
    charge_picos=1_275_679_001,
    price_source=PriceSource.PROVIDER,
)
UNKNOWN = Unknown(UnknownReason.NO_USAGE)
LINE_ENDS = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}
DONE = "data: [DONE]\n\n"
MARK = "<usage>"
RANDOM_CUTS = 150


def event(**members: object) -> str:
    """One event; the mark stands for the usage, whose digits are kept as they are."""
    told = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    return f"data: {told}\n\n".replace(json.dumps(MARK), USAGE)


TEXT = event(id=GENERATION, choices=[{"delta": {"content": "héllo €"}}])
HEAD = ": OPENROUTER PROCESSING\n\n" + TEXT
LAST = event(id=GENERATION, choices=[], usage=MARK)
NULL = event(id=GENERATION, choices=[], usage=None)
# What a model may say: it looks like events and like usage.
DECOY = event(
    choices=[{"delta": {"content": f'data: {{"usage":{USAGE}}}\n\ndata: [DONE]\r\n\r\n{USAGE}'}}]
)

# What comes after the head, and what it must settle as.
TAILS: dict[str, tuple[str, Settled | Unknown]] = {
    "null before usage": (NULL + LAST + DONE, TRUTH),
    "null after usage": (LAST + NULL + DONE, TRUTH),
    "null only": (NULL + DONE, UNKNOWN),
    "no usage": (TEXT + DONE, UNKNOWN),
    "comments around": (f": a\n: b\n\n: c\n{LAST[:-1]}: d\n\n: e\n\n{DONE}: f\n\n", TRUTH),
    "other fields": (f"event: message\nid: 7\nretry: 9\n{LAST}{DONE}", TRUTH),
    "no space": (LAST.replace("data: ", "data:") + DONE, TRUTH),
    "two data lines": (LAST.replace(',"usage"', ',\ndata: "usage"') + DONE, TRUTH),
    "usage in the text": (DECOY + DONE, UNKNOWN),
    "usage in the text, then usage": (DECOY + LAST + DONE, TRUTH),
    "usage in the text, after usage": (LAST + DECOY + DONE, TRUTH),
    "usage of a choice": (event(choices=[{"usage": MARK}]) + DONE, UNKNOWN),
    "growing usage": (event(usage={"prompt_tokens": 12, "cost": 0.001}) + LAST + DONE, TRUTH),
    "never ended": (LAST[:-1], UNKNOWN),
    "half a JSON": (LAST.replace("}\n\n", "\n\n") + DONE, UNKNOWN),
}
LARGE = {
    "before": event(text="x" * MIB) + LAST + DONE,
    "in front of usage": event(choices=["x" * MIB], usage=MARK) + DONE,
    "behind usage": event(usage=MARK, choices=["x" * MIB]) + DONE,
}

on_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def splitter() -> AsyncIterator[Splitter]:
    async with running_gateway() as gateway:
        yield Splitter(gateway)


def ended(stream: str, line_end: str) -> bytes:
    return stream.replace("\n", LINE_ENDS[line_end]).encode()


@on_one_loop
@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("tail", [LAST + DONE, DONE + LAST], ids=["before DONE", "after DONE"])
async def test_cut_at_every_byte_of_its_last_two_events(
    splitter: Splitter, tail: str, line_end: str
) -> None:
    head, stream = ended(HEAD, line_end), ended(HEAD + tail, line_end)
    outcomes = await splitter.outcomes(
        cut(stream, offset) for offset in range(len(head), len(stream) + 1)
    )
    # A CR that ends the stream may be half of a CRLF: the event is not known to have ended.
    is_open = line_end == "CR" and tail.endswith(LAST)
    assert set(outcomes) == {UNKNOWN if is_open else TRUTH}


@on_one_loop
@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("name", TAILS)
async def test_told_in_every_way(splitter: Splitter, name: str, line_end: str) -> None:
    tail, expected = TAILS[name]
    head, stream = ended(HEAD, line_end), ended(HEAD + tail, line_end)
    outcomes = await splitter.outcomes(
        cut(stream, offset) for offset in range(len(head), len(stream) + 1)
    )
    assert set(outcomes) == {expected}


@on_one_loop
@pytest.mark.parametrize("line_end", LINE_ENDS)
async def test_cut_in_many_pieces(splitter: Splitter, line_end: str) -> None:
    stream = ended(HEAD + LAST + DONE, line_end)
    draw = random.Random(line_end)
    cuts = [draw.sample(range(len(stream)), draw.randrange(2, 9)) for _ in range(RANDOM_CUTS)]
    every_byte = range(len(stream))
    outcomes = await splitter.outcomes(cut(stream, *each) for each in [*cuts, every_byte])
    assert set(outcomes) == {TRUTH}


@on_one_loop
@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("name", LARGE)
async def test_events_of_a_megabyte(splitter: Splitter, name: str, line_end: str) -> None:
    stream = ended(HEAD + LARGE[name], line_end)
    places = [5, 20, 60, 65_536, 65_537, MIB // 2]
    outcomes = await splitter.outcomes(cut(stream, len(stream) - place) for place in places)
    assert set(outcomes) == {TRUTH}


# What the upstream does with a stream, whole and through everything.
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "every byte apart": {"chunk_sizes": [1], "chunk_delay_ms": 0},
    "uneven": {"chunk_sizes": [1, 2, 3, 5, 8, 13, 21, 34, 200]},
    "CRLF in pieces": {"line_ending": "\r\n", "chunk_sizes": [3]},
    "CR": {"line_ending": "\r", "chunk_sizes": [11]},
    "CR, usage after the end": {"line_ending": "\r", "usage_after_done": True},
    "usage after the end": {"usage_after_done": True, "chunk_sizes": [17]},
    "null": {"usage_null": True},
    "silent": {"silent_usage": True},
    "silent and nameless": {"silent_usage": True, "omit_generation_id": True},
    "in the text only": {"text": DECOY, "silent_usage": True},
    "in the text": {"text": DECOY, "chunk_sizes": [13]},
    "a megabyte": {"text": "Lorem ipsum " * 90_000},
    "an error halfway": {"error_midstream": True},
    "a cost of nought": {"zero_cost": True},
    "cut before usage": {"cut_after_bytes": 700},
    "cut at once": {"cut_after_bytes": 0},
    "cut at once, nameless": {"cut_after_bytes": 0, "omit_generation_id": True},
    "a wrong cost": {"wrong_cost": "0.5"},
}


async def test_what_a_stream_does_not_say_is_looked_up(brisk_stack: ChaosStack) -> None:
    cases = dict(zip(BEHAVIOURS, listeners(len(BEHAVIOURS)), strict=True))
    auditor = Auditor(brisk_stack)
    async with aiohttp.ClientSession() as session:
        stage = Stage(brisk_stack, session)
        customers = await stage.open_accounts(list(cases.values()))
        await stage.behave(case.behaviour(**BEHAVIOURS[name]) for name, case in cases.items())
        await asyncio.gather(*(stage.stay(case, customers[case.number]) for case in cases.values()))
    expected = [
        Expected(name, customers[case.number].id, case.prompt_tokens)
        for name, case in cases.items()
    ]
    await auditor.wait_ended([one.account_id for one in expected], WAIT_S)
    await _wait_corrected(auditor, customers[cases["a wrong cost"].number].id)
    usage = await auditor.check_paid(expected, CREDIT_PICOS)
    assert {(one.kind, one.source) for one in usage} == {
        ("settlement", "stream"),
        ("settlement", "lookup"),
        ("correction", "lookup"),
    }


async def _wait_corrected(auditor: Auditor, account_id: str) -> None:
    """The provider's report names another cost than its reply did."""
    async with asyncio.timeout(WAIT_S):
        while len(await auditor.usage([account_id])) < 2:  # noqa: ASYNC110  # Postgres has no event
            await asyncio.sleep(0.2)
