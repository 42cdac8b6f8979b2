"""The replies that are no completions: ranked documents, sound, and the text of a sound."""

import json
import zlib

from tollkeeper.simulator.answers.answering import Answer
from tollkeeper.simulator.answers.misbehaviour import Behaviour
from tollkeeper.simulator.answers.words import Vocabulary
from tollkeeper.simulator.asking import Endpoint
from tollkeeper.simulator.pricing import to_usd

WORDS_PER_SECOND = 2
CHARACTERS_PER_SECOND = 15
SECONDS_MAX = 60
# A silent frame of MPEG-1 layer III: 128 kbit/s, 44,100 samples a second, two channels.
MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)
MP3_FRAMES_PER_SECOND = 38
PCM_BYTES_PER_SECOND = 48_000
SOUND_TYPES = {"mp3": "audio/mpeg", "pcm": "audio/pcm"}


def measured_body(answer: Answer, behaviour: Behaviour, vocabulary: Vocabulary) -> bytes:
    """The reply to a search, a speech or a transcription."""
    if answer.ask.endpoint is Endpoint.SPEECH:
        return _sound(answer)
    usage = _usage_member(answer, behaviour)
    measure = answer.ask.measure
    if answer.ask.endpoint is Endpoint.RERANK:
        top = answer.ask.members.get("top_n") or len(measure.documents)
        scores = [
            (zlib.crc32(json.dumps(one).encode(), answer.ask.digest) % 1_000_000 / 1_000_000, index)
            for index, one in enumerate(measure.documents)
        ]
        results = [
            {"index": index, "relevance_score": score, "document": measure.documents[index]}
            for score, index in sorted(scores, reverse=True)[:top]
        ]
        reply: dict[str, object] = {
            "id": answer.generation_id,
            "model": answer.model.id,
            "provider": answer.model.provider,
            "results": results,
        }
    else:
        words = max(1, int(measure.seconds * WORDS_PER_SECOND))
        text = behaviour.text
        if text is None:
            said = vocabulary.text(answer.ask.digest, min(words, 2_000))
            text = f"This is a simulated transcription: {said}."
        reply = {"text": text}
        if answer.ask.members.get("response_format") == "verbose_json":
            whole = {"id": 0, "start": 0.0, "end": measure.seconds, "text": text}
            spoken = {"duration": measure.seconds, "language": "english", "segments": [whole]}
            reply |= {"task": "transcribe", **spoken}
    return f"{json.dumps(reply, separators=(',', ':'))[:-1]}{usage}}}".encode()


def content_type(answer: Answer) -> str:
    """The type of a reply that is not a stream."""
    if answer.ask.endpoint is Endpoint.SPEECH:
        return SOUND_TYPES[answer.ask.members.get("response_format") or "pcm"]
    return "application/json"


def _sound(answer: Answer) -> bytes:
    """Silence, as long as the text takes."""
    seconds = min(SECONDS_MAX, 1 + answer.ask.measure.characters // CHARACTERS_PER_SECOND)
    if answer.ask.members.get("response_format") == "mp3":
        return MP3_FRAME * (seconds * MP3_FRAMES_PER_SECOND)
    return bytes(seconds * PCM_BYTES_PER_SECOND)


def _usage_member(answer: Answer, behaviour: Behaviour) -> str:
    if behaviour.silent_usage:
        return ""
    if behaviour.usage_null:
        return ',"usage":null'
    # The cost goes in as text: a float on the way would not be the bill's number.
    cost = "0" if behaviour.zero_cost else to_usd(answer.cost_picos)
    if behaviour.wrong_cost is not None:
        cost = behaviour.wrong_cost
    if behaviour.usage_placeholder == "zeros":
        cost = "0"
    if answer.ask.endpoint is Endpoint.RERANK:
        units = f'"search_units":{answer.ask.measure.search_units}'
        units += f',"total_tokens":{answer.usage.prompt_tokens}'
    else:
        units = f'"seconds":{answer.ask.measure.seconds}'
    return f',"usage":{{{units},"cost":{cost}}}'
