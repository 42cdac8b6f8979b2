"""POST /chat/completions: replies to a conversation, in OpenAI's form."""

from typing import Final

from authz.endpoints.body import read_body
from authz.endpoints.demand import bound_generated_text
from authz.endpoints.edits import edit_body
from authz.endpoints.endpoint import Endpoint

CHAT_COMPLETIONS: Final = Endpoint(
    name="chat_completions",
    paths=("chat/completions",),
    read=read_body,
    bound=bound_generated_text,
    edits=edit_body,
)
