"""Words, numbers and JSON of the simulator, which depend on seed and request only."""

import base64
import random
from array import array
from typing import Any

WORD_COUNT = 4096
NUMBER_COUNT = 4096
NUMBER_SCALE = 2**13
"""Embedding numbers are multiples of 2**-13: the same as text and as 32-bit floats."""
SCHEMA_DEPTH_MAX = 8

_SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "ki",
    "lo",
    "mu",
    "ne",
    "pa",
    "ri",
    "so",
    "tu",
    "ve",
    "wi",
)


class Vocabulary:
    """Rings of words and numbers, drawn once from the seed; answers are stretches of them."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)  # Repeatable on purpose, guards nothing
        self.seed = seed
        self._words = [
            "".join(draw.choices(_SYLLABLES, k=draw.randint(1, 3))) for _ in range(WORD_COUNT)
        ]
        numbers = [draw.randint(-800, 800) / NUMBER_SCALE for _ in range(NUMBER_COUNT)]
        self._numbers = array("f", numbers)
        self._number_texts = [repr(number) for number in numbers]

    def text(self, start: int, word_count: int) -> str:
        """``word_count`` words, from anywhere in the ring."""
        start %= WORD_COUNT
        stretch = self._words[start : start + word_count]
        while len(stretch) < word_count:
            stretch += self._words[: word_count - len(stretch)]
        return " ".join(stretch)

    def vector_text(self, start: int, dimensions: int) -> str:
        """A JSON array of ``dimensions`` numbers."""
        start %= NUMBER_COUNT - dimensions
        return f"[{','.join(self._number_texts[start : start + dimensions])}]"

    def vector_base64(self, start: int, dimensions: int) -> str:
        """The same numbers as base64 of little-endian 32-bit floats."""
        start %= NUMBER_COUNT - dimensions
        return base64.b64encode(self._numbers[start : start + dimensions].tobytes()).decode()


def example_of(schema: dict[str, Any], word: str, depth: int = 0) -> Any:
    """The smallest value that fits a JSON schema of the common kind."""
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "string":
            return word
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return []
        case _:
            properties = schema.get("properties")
            if depth >= SCHEMA_DEPTH_MAX or not isinstance(properties, dict):
                return {}
            return {
                name: example_of(part if isinstance(part, dict) else {}, word, depth + 1)
                for name, part in properties.items()
            }
