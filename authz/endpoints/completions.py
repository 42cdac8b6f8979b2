"""POST /completions: texts that continue one or several prompts, in OpenAI's older form."""

from typing import Final

from authz.endpoints.body import read_body
from authz.endpoints.demand import bound_generated_text
from authz.endpoints.edits import edit_body
from authz.endpoints.endpoint import Endpoint

COMPLETIONS: Final = Endpoint(
    name="completions",
    paths=("completions",),
    read=read_body,
    bound=bound_generated_text,
    edits=edit_body,
)
