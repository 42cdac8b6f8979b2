"""Values that fit a JSON schema, for replies in a ``response_format`` and arguments of tools."""

import math
import re
from typing import Any, Final, TypeGuard

SHALLOW_DEPTH: Final = 6
"""Levels down to which optional members are filled in; below, only what the schema requires."""
DEPTH_MAX: Final = 24
VALUES_MAX: Final = 2_000
ITEMS_MAX: Final = 32
CHARS_MAX: Final = 4_096
PATTERN_MAX_CHARS: Final = 200
NUMBER: Final = 7

Json = dict[str, Any]

_FORMATS: Final = {
    "date": "2030-01-31",
    "time": "12:00:00Z",
    "date-time": "2030-01-31T12:00:00Z",
    "duration": "P1D",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/simulated",
    "url": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_TRIED_WITH_PATTERNS: Final = ("a", "A", "Aa", "7", "77", "777", "7777", "#777777", "a-7", "A7")


def example_of(schema: object, word: str) -> Any:
    """Return a value that fits ``schema``, whose strings are ``word`` where nothing forbids it.

    Covers what clients send: types, enum, const, ``$ref`` into the schema itself, anyOf, oneOf,
    allOf, formats, lengths and ranges. Of patterns it tries a few short strings. The work is
    bounded by ``DEPTH_MAX`` and ``VALUES_MAX``; a schema that demands more gets null there.
    """
    return _Walk(schema, word).value(schema, 0)


class _Walk:
    """One walk over a schema, which counts the values it has made."""

    def __init__(self, root: object, word: str) -> None:
        self._root = root
        self._word = word
        self._left = VALUES_MAX

    def value(self, schema: object, depth: int) -> Any:
        self._left -= 1
        if depth > DEPTH_MAX or self._left < 0 or schema is False:
            return None
        is_deep = depth > SHALLOW_DEPTH
        flat = self._flatten(schema, is_deep=is_deep)
        if "const" in flat:
            return flat["const"]
        if isinstance(flat.get("enum"), list) and flat["enum"]:
            return flat["enum"][0]
        match _type_of(flat):
            case "integer":
                return _number(flat, is_whole=True)
            case "number":
                return _number(flat, is_whole=False)
            case "boolean":
                return True
            case "null":
                return None
            case "array":
                return self._array(flat, depth, is_deep=is_deep)
            case "object":
                return self._object(flat, depth, is_deep=is_deep)
            case _:
                return _string(flat, self._word)

    def _flatten(self, schema: object, *, is_deep: bool) -> Json:
        """Follow references and choose among alternatives until only plain members are left."""
        flat = schema if isinstance(schema, dict) else {}
        for _ in range(DEPTH_MAX):
            reference = flat.get("$ref")
            if isinstance(reference, str):
                target = self._resolve(reference)
                flat = {**target, **{name: flat[name] for name in flat if name != "$ref"}}
                continue
            parts = flat.get("allOf")
            if isinstance(parts, list):
                flat = _merge({name: flat[name] for name in flat if name != "allOf"}, parts)
                continue
            name = next((one for one in ("anyOf", "oneOf") if flat.get(one)), None)
            if name is None or not isinstance(flat[name], list):
                break
            rest = {one: flat[one] for one in flat if one != name}
            flat = _merge(rest, [_choose(flat[name], is_deep=is_deep)])
        return flat

    def _resolve(self, reference: str) -> Json:
        found = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def _array(self, schema: Json, depth: int, *, is_deep: bool) -> list[Any]:
        least = min(_whole(schema.get("minItems"), 0), ITEMS_MAX)
        count = least if is_deep else max(least, 1)
        count = min(count, _whole(schema.get("maxItems"), ITEMS_MAX))
        firsts = schema.get("prefixItems")
        firsts = firsts if isinstance(firsts, list) else []
        count = max(count, min(len(firsts), ITEMS_MAX))
        others = schema.get("items", {})
        if others is False:
            count = min(count, len(firsts))
        values = [
            self.value(firsts[index] if index < len(firsts) else others, depth + 1)
            for index in range(count)
        ]
        if schema.get("uniqueItems") is True:
            values = [_varied(value, others, index) for index, value in enumerate(values)]
        return values

    def _object(self, schema: Json, depth: int, *, is_deep: bool) -> Json:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        names = [name for name in required if isinstance(name, str)] if required else []
        if not is_deep:
            names = [*properties, *(name for name in names if name not in properties)]
        made: Json = {}
        for name in names:
            if self._left <= 0:
                break
            made[name] = self.value(properties.get(name, {}), depth + 1)
        return made


def _type_of(schema: Json) -> object:
    named = schema.get("type")
    if isinstance(named, list):
        return next((one for one in named if one != "null"), "null")
    if named is None:
        hints = {"properties": "object", "required": "object", "items": "array"}
        hints |= {"prefixItems": "array", "minimum": "number", "maximum": "number"}
        return next((kind for name, kind in hints.items() if name in schema), "string")
    return named


def _choose(alternatives: list[Any], *, is_deep: bool) -> object:
    """Return the first alternative that is not null; deep down null, where it is offered."""
    nulls = [one for one in alternatives if isinstance(one, dict) and one.get("type") == "null"]
    if is_deep and nulls:
        return nulls[0]
    flat = [one for one in alternatives if one not in nulls]
    if is_deep:
        flat.sort(key=lambda one: "$ref" in one if isinstance(one, dict) else False)
    return flat[0] if flat else {"type": "null"}


def _merge(schema: Json, others: list[Any]) -> Json:
    merged = dict(schema)
    for other in others:
        for name, given in other.items() if isinstance(other, dict) else ():
            known = merged.get(name)
            if isinstance(known, dict) and isinstance(given, dict):
                merged[name] = {**known, **given}
            elif name == "required" and isinstance(known, list) and isinstance(given, list):
                merged[name] = [*known, *(one for one in given if one not in known)]
            else:
                merged[name] = given
    return merged


def _string(schema: Json, word: str) -> str:
    least = min(_whole(schema.get("minLength"), 0), CHARS_MAX)
    most = _whole(schema.get("maxLength"), CHARS_MAX)
    text = _FORMATS.get(str(schema.get("format")), word)
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and len(pattern) <= PATTERN_MAX_CHARS:
        text = _matching(pattern, (text, *_TRIED_WITH_PATTERNS, "a" * least), text)
    if len(text) < least:
        text += "." * (least - len(text))
    return text[:most]


def _matching(pattern: str, candidates: tuple[str, ...], default: str) -> str:
    try:
        fits = re.compile(pattern).search
    except (re.error, RecursionError, OverflowError):
        return default
    return next((text for text in candidates if fits(text)), default)


def _number(schema: Json, *, is_whole: bool) -> float:
    """Return 7, or the number in the schema's range that is nearest to it."""
    given = schema.get("multipleOf")
    step = float(given) if _is_number(given) and given else None
    low, high = -math.inf, math.inf
    least = step or (1 if is_whole else 0.5)
    if _is_number(schema.get("minimum")):
        low = schema["minimum"]
    if _is_number(schema.get("exclusiveMinimum")):
        low = max(low, schema["exclusiveMinimum"] + least)
    if _is_number(schema.get("maximum")):
        high = schema["maximum"]
    if _is_number(schema.get("exclusiveMaximum")):
        high = min(high, schema["exclusiveMaximum"] - least)
    if low > high:
        # Only numbers between two limits, as in 0 < x < 0.2.
        edges = schema.get("exclusiveMinimum", low), schema.get("exclusiveMaximum", high)
        return sum(edges) / 2 if all(_is_number(edge) for edge in edges) else NUMBER
    number: float = min(max(NUMBER, low), high)
    if step is not None:
        number = math.ceil(number / step) * step
        if number > high:
            number -= step
    if is_whole:
        return math.ceil(number) if math.ceil(number) <= high else math.floor(number)
    return number


def _varied(value: Any, schema: object, index: int) -> Any:
    """Return the value number ``index`` of a list whose items must differ."""
    choices = schema.get("enum") if isinstance(schema, dict) else None
    if isinstance(choices, list) and index < len(choices):
        return choices[index]
    if index and isinstance(value, str):
        return f"{value} {index}"
    if index and isinstance(value, int) and not isinstance(value, bool):
        return value + index
    return value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object, default: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return default
    return value
