"""POST /rerank: documents in the order in which they answer a query, billed by search units.

A search unit is one query with up to 100 documents, and a long document counts once for each of
its chunks. Some rerankers bill the tokens that they read instead; both are bounded.
"""

from typing import Any, Final

from authz.decision import Deny, Edit, Refused
from authz.endpoints.body import Body, read_body
from authz.endpoints.demand import IMAGE_TOKENS
from authz.endpoints.edits import edit_body
from authz.endpoints.endpoint import Endpoint
from authz.endpoints.members import invalid, refuse_unknown
from authz.endpoints.openrouter import read_price_limits
from authz.endpoints.rewriting import Rewrite
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Demand, Extra, PriceCeiling, ProviderWork
from meter.usage.endpoints import RERANK as NAME

MAX_DOCUMENTS: Final = 10_000
DOCUMENTS_PER_UNIT: Final = 100
# Documents are split so that chunk and query have 500 tokens together, some of which are marks.
CHUNK_TOKENS: Final = 480
# The words that a reranker which is billed by token puts around each pair of query and document.
PAIR_OVERHEAD_TOKENS: Final = 256
_MEMBERS: Final = frozenset(
    {
        *("model", "query", "documents", "top_n", "provider"),
        *("return_documents", "max_tokens_per_doc", "user"),
    }
)
_DOCUMENT_MEMBERS: Final = frozenset({"text", "image"})


def bound(body: Body, is_online: bool) -> Demand | Deny:
    """Return the most that the body may ask for, or why it cannot be bounded.

    Nothing searches the web here, whatever the name of the model asks for.
    """
    members = body.members
    try:
        refuse_unknown(members, _MEMBERS)
        read_price_limits(members)
        query, documents = members.get("query"), members.get("documents")
        if not isinstance(query, str):
            raise invalid("query", "a text")
        if not isinstance(documents, list) or not 1 <= len(documents) <= MAX_DOCUMENTS:
            raise invalid("documents", f"a list of 1 to {MAX_DOCUMENTS} texts")
        query_tokens = _most_tokens(query)
        sizes = [_measure_document(document) for document in documents]
    except Refused as refused:
        return refused.deny
    # The longer the query, the shorter the chunks. One that leaves no room may be cut, and nobody
    # documents where.
    room = max(1, CHUNK_TOKENS - query_tokens)
    chunks = sum(-(-max(1, tokens) // room) for tokens, _ in sizes)
    # Each document is read together with the query.
    read = sum(tokens for tokens, _ in sizes) + len(sizes) * (query_tokens + PAIR_OVERHEAD_TOKENS)
    return Demand(
        PROMPT_OVERHEAD_TOKENS + read,
        0,
        images=sum(images for _, images in sizes),
        prompts=len(sizes),
        extras=frozenset({Extra.SEARCH_UNITS}),
        # Each search unit costs what a request costs.
        work=ProviderWork(calls=-(-chunks // DOCUMENTS_PER_UNIT)),
    )


def edit(
    body: Body,
    max_tokens: int | None,
    report_tag: str | None,
    ceiling: PriceCeiling | None,
    rewrite: Rewrite | None,
) -> tuple[Edit, ...]:
    """Return the edits of a body. It takes no tag (`WITHOUT_TAG`), and has no reply to limit."""
    return edit_body(body, None, None, ceiling, rewrite)


def _measure_document(document: object) -> tuple[int, int]:
    """Return the most tokens of a document, and how many images it has. Raises Refused."""
    if isinstance(document, str):
        return _most_tokens(document), 0
    if not isinstance(document, dict):
        raise invalid("documents", "a list of texts, or of objects with 'text' or 'image'")
    refuse_unknown(document, _DOCUMENT_MEMBERS, "documents.")
    text: Any = document.get("text") or ""
    image: Any = document.get("image")
    if not isinstance(text, str) or not isinstance(image, str | None):
        raise invalid("documents", "a list of texts, or of objects whose members are texts")
    images = 0 if image is None else 1
    return _most_tokens(text) + images * IMAGE_TOKENS, images


def _most_tokens(text: str) -> int:
    """Return the bytes of a text: no token is less than one."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


RERANK: Final = Endpoint(name=NAME, paths=("rerank",), read=read_body, bound=bound, edits=edit)
