"""Form-encoded parameters with nested brackets: `line_items[0][price]=price_1`."""

import re
from urllib.parse import parse_qsl

from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter

PAIRS_MAX = 2_000
DEPTH_MAX = 8
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_STEP = re.compile(r"\[([^\[\]]*)\]")


def parse_form(text: str) -> Json:
    """Return the parameters of a body or query as a tree; a list is a tree with numbers as keys.

    Raises Problem for a name that is malformed, too deep, or both a value and a tree.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=PAIRS_MAX)
    except ValueError:
        raise bad_parameter(f"At most {PAIRS_MAX} parameters are read.", None) from None
    tree: Json = {}
    for name, value in pairs:
        match = _NAME.fullmatch(name)
        steps = [match[1], *_STEP.findall(match[2])] if match else []
        if not 1 <= len(steps) <= DEPTH_MAX:
            raise bad_parameter(f"Invalid parameter name: {name}", name)
        place = tree
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            key = step or str(len(place))
            if following is None:
                if isinstance(place.get(key), dict):
                    raise bad_parameter(f"Invalid parameter: {name}", name)
                place[key] = value
                break
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                raise bad_parameter(f"Invalid parameter: {name}", name)
            place = inner
    return tree
