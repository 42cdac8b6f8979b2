"""Facts about endpoints that the reading of usage depends on, by the name in hold and record."""

from typing import Final

EMBEDDINGS: Final = "embeddings"
IMAGES: Final = "images"
MESSAGES: Final = "messages"
RERANK: Final = "rerank"
SPEECH: Final = "speech"
TRANSCRIPTIONS: Final = "transcriptions"
# A complete answer of these endpoints has no completion tokens. At all other endpoints, an answer
# without any is an empty reply, which providers do not bill.
WITHOUT_COMPLETION: Final = frozenset({EMBEDDINGS, RERANK, SPEECH, TRANSCRIPTIONS})
# The provider's API takes no tag in bodies of these, so that none of its reports leads to a hold.
WITHOUT_TAG: Final = frozenset({IMAGES, RERANK, SPEECH, TRANSCRIPTIONS})
# OpenRouter documents the usage of these endpoints' streams without a cost. Its record has it.
WITHOUT_STREAM_COST: Final = frozenset({MESSAGES})
