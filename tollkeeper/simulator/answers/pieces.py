"""The pieces in which a stream sends a text, and its last line."""

from collections.abc import Iterator

PIECE_MIN_CHARS = 20
PIECES_MAX = 2_000
DONE = b"data: [DONE]\n\n"


def pieces_of_text(text: str) -> Iterator[str]:
    """Cut a text into pieces of at least ``PIECE_MIN_CHARS``, at most ``PIECES_MAX`` of them."""
    size = max(PIECE_MIN_CHARS, len(text) // PIECES_MAX + 1)
    return (text[start : start + size] for start in range(0, len(text), size))
