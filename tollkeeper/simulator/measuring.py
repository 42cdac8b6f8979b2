"""Reads the requests that are billed by other units than tokens, and counts these units.

A search is one query with up to 100 documents. Query and document have 500 tokens together: a
longer document counts once for each of its chunks. A speech has the characters of its text. A
sound has the seconds that a decoder finds in it, rounded up, and at least ten of them.
"""

import base64
import io
import json
import math
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from tollkeeper.simulator.answers.refusal import Refusal

DOCUMENTS_PER_SEARCH = 100
CHUNK_TOKENS = 500
LEAST_ROOM_TOKENS = 250
SECONDS_MIN = 10
BYTES_PER_TOKEN = 4

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measure:
    """The units of one request, and what its answer repeats of it."""

    search_units: int = 0
    characters: int = 0
    seconds: float = 0.0
    documents: tuple[Json, ...] = ()

    @property
    def billed_units(self) -> int:
        """The units at the price of a prompt's token: characters, or seconds."""
        if self.seconds:
            return max(SECONDS_MIN, math.ceil(self.seconds))
        return self.characters


def read_members(body: bytes, content_type: str) -> Json:
    """The members of a JSON object or a form; raises Refusal(400) for anything else."""
    if content_type.lower().startswith("multipart/"):
        return _read_form(body, content_type)
    return read_object(body)


def read_object(body: bytes) -> Json:
    """The members of a JSON object; raises Refusal(400) for anything else."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request body is not valid JSON") from None
    if not isinstance(asked, dict):
        raise Refusal(400, "The request body is not a JSON object")
    return asked


def _read_form(body: bytes, content_type: str) -> Json:
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    form = BytesParser(policy=HTTP).parsebytes(head + body)
    asked: Json = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        file_name = part.get_filename()
        if file_name is None:
            asked[str(name)] = content.decode()
        else:
            kind = file_name.rpartition(".")[2]
            data = base64.b64encode(content).decode()
            asked["input_audio"] = {"data": data, "format": kind}
    return asked


def measure_search(asked: Json) -> tuple[Measure, int]:
    """The units of a search, and the tokens that a reranker reads for it."""
    query, given = asked.get("query"), asked.get("documents")
    if not isinstance(query, str) or not isinstance(given, list) or not given:
        raise Refusal(400, "query and documents are required")
    documents = tuple({"text": one} if isinstance(one, str) else dict(one) for one in given)
    query_tokens = _tokens(query)
    sizes = [_tokens(str(one.get("text", ""))) for one in documents]
    units = count_search_units(query_tokens, sizes)
    read = sum(sizes) + query_tokens * len(sizes)
    return Measure(search_units=units, documents=documents), read


def count_search_units(query_tokens: int, document_tokens: Sequence[int]) -> int:
    """Cohere's count. A query that leaves too little room for a document is cut."""
    room = max(CHUNK_TOKENS - query_tokens, LEAST_ROOM_TOKENS)
    chunks = sum(max(1, math.ceil(tokens / room)) for tokens in document_tokens)
    return math.ceil(chunks / DOCUMENTS_PER_SEARCH)


def measure_speech(asked: Json) -> Measure:
    """The characters of a text. The provider answers with MP3 or PCM, and nothing else."""
    text = asked.get("input")
    if not isinstance(text, str) or not text:
        raise Refusal(400, "input is required")
    if asked.get("response_format") not in (None, "mp3", "pcm"):
        raise Refusal(400, "response_format must be mp3 or pcm")
    return Measure(characters=len(text))


def measure_sound(asked: Json) -> Measure:
    """The seconds of a sound."""
    given = asked.get("input_audio")
    if not isinstance(given, dict):
        raise Refusal(400, "input_audio is required")
    if asked.get("response_format") not in (None, "json", "verbose_json"):
        raise Refusal(400, "response_format must be json or verbose_json")
    try:
        sound = base64.b64decode(str(given.get("data")), validate=True)
        seconds = count_seconds(sound, str(given.get("format")))
    except (ValueError, EOFError, wave.Error):
        raise Refusal(400, "The sound could not be decoded") from None
    return Measure(seconds=seconds)


def count_seconds(sound: bytes, kind: str) -> float:
    """The seconds of sound in a file. Raises ValueError, EOFError or wave.Error."""
    if kind == "wav":
        with wave.open(io.BytesIO(sound)) as file:
            seconds: float = file.getnframes() / file.getframerate()
            return seconds
    if kind == "mp3":
        return _seconds_of_frames(sound)
    raise ValueError(kind)


def _seconds_of_frames(sound: bytes) -> float:
    """Walk the frames of MPEG-1 layer III, which the simulator writes itself."""
    rates = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    samples = (44_100, 48_000, 32_000)
    at, seconds = 0, 0.0
    while at + 4 <= len(sound):
        header = int.from_bytes(sound[at : at + 4], "big")
        rate, hertz = rates[header >> 12 & 15], samples[header >> 10 & 3]
        if header >> 17 != 0xFFFB >> 1 or not rate:
            raise ValueError("no frame")
        at += 144_000 * rate // hertz + (header >> 9 & 1)
        seconds += 1_152 / hertz
    return seconds


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)
