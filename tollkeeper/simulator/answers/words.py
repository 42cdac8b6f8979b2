"""Words, numbers and JSON of the simulator, which depend on seed and request only."""

import base64
import random
from array import array

SENTENCE_COUNT = 4096
NUMBER_COUNT = 4096
NUMBER_SCALE = 2**13
"""Embedding numbers are multiples of 2**-13: the same as text and as 32-bit floats."""
OPENING = "Simulated answer: no model has read your message."
REASONING_OPENING = "Simulated reasoning: no model thinks here."
EXAMPLE_WORD = "simulated"

_SENTENCES = (
    "A real provider would put its own words here.",
    "The words come from a list and depend on the seed and the request.",
    "Each word is billed as one token.",
    "The bill of this provider has a row for this reply.",
    "The price is that of the catalogue.",
    "Send the same request again to read the same words.",
    "Nothing that you sent has left this machine.",
    "The number of words is drawn at random.",
    "A limit on tokens cuts this text short.",
    "Streams send the same text in small pieces.",
    "The charge is the cost and the markup.",
    "A hold was placed before this request was sent.",
    "Set a real provider key to talk to a real model.",
    "This sentence only fills the space of an answer.",
    "The text says nothing about your question.",
    "Usage stands at the end of this reply.",
    "Tools are called with arguments that fit their schema.",
    "A reply in a given format is made from its schema.",
    "Errors can be ordered from the simulator for tests.",
    "The account pays for every word of this reply.",
)


class Vocabulary:
    """Rings of words and numbers, drawn once from the seed; answers are stretches of them."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)  # Repeatable on purpose, guards nothing
        self.seed = seed
        self._words: list[str] = []
        self._starts: list[int] = []
        for sentence in draw.choices(_SENTENCES, k=SENTENCE_COUNT):
            self._starts.append(len(self._words))
            self._words += sentence.split()
        numbers = [draw.randint(-800, 800) / NUMBER_SCALE for _ in range(NUMBER_COUNT)]
        self._numbers = array("f", numbers)
        self._number_texts = [repr(number) for number in numbers]

    def text(self, start: int, word_count: int, opening: str = OPENING) -> str:
        """Return exactly ``word_count`` words: the opening, then sentences from the ring."""
        words = opening.split()
        at = self._starts[start % SENTENCE_COUNT]
        words += self._words[at : at + max(0, word_count - len(words))]
        while len(words) < word_count:
            words += self._words[: word_count - len(words)]
        return " ".join(words[:word_count])

    def whole_sentences(self, start: int, most_words: int) -> int:
        """Return the words of ``text(start, most_words)`` up to the end of its last sentence."""
        words = self.text(start, most_words).split()
        ends = (count for count in range(len(words), 0, -1) if words[count - 1].endswith("."))
        return next(ends, most_words)

    def vector_text(self, start: int, dimensions: int) -> str:
        """A JSON array of ``dimensions`` numbers."""
        start %= NUMBER_COUNT - dimensions
        return f"[{','.join(self._number_texts[start : start + dimensions])}]"

    def vector_base64(self, start: int, dimensions: int) -> str:
        """The same numbers as base64 of little-endian 32-bit floats."""
        start %= NUMBER_COUNT - dimensions
        return base64.b64encode(self._numbers[start : start + dimensions].tobytes()).decode()
