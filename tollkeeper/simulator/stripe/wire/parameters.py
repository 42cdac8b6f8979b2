"""Typed reading of a request's parameters. What nobody read is an unknown parameter."""

import re
from collections.abc import Collection
from decimal import Decimal, InvalidOperation

from tollkeeper.simulator.stripe.wire.problem import Json, bad_parameter

TEXT_MAX_CHARACTERS = 5_000
AMOUNT_MAX = 99_999_999
METADATA_KEYS_MAX = 50
METADATA_KEY_MAX_CHARACTERS = 40
METADATA_VALUE_MAX_CHARACTERS = 500
LIST_MAX = 100
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")


class Parameters:
    """One level of the parameters of a request.

    The methods that read return None for an absent parameter. An empty text is Stripe's way to
    unset a member: `has` tells it from an absent one. `finish` raises for each name that was not
    read; a handler calls it before it changes anything.
    """

    def __init__(self, values: Json, path: str = "") -> None:
        self._values = values
        self._path = path
        self._unread = set(values)
        self._children: list[Parameters] = []

    def __bool__(self) -> bool:
        return bool(self._values)

    def name_of(self, name: str) -> str:
        """Return the full name of a member, as errors show it."""
        return f"{self._path}[{name}]" if self._path else name

    def has(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str | None = None) -> str | None:
        self._unread.discard(name)
        value = self._values.get(name, "")
        if not isinstance(value, str):
            raise bad_parameter(f"Invalid string: {self.name_of(name)}", self.name_of(name))
        if len(value) > TEXT_MAX_CHARACTERS:
            raise bad_parameter(
                f"Invalid string: must be at most {TEXT_MAX_CHARACTERS} characters",
                self.name_of(name),
            )
        return value or default

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise self.absent(name)
        return value

    def absent(self, name: str) -> Exception:
        """Return the error for a required parameter that is not there."""
        full = self.name_of(name)
        return bad_parameter(f"Missing required param: {full}.", full, "parameter_missing")

    def choice(self, name: str, allowed: Collection[str], default: str | None = None) -> str | None:
        value = self.text(name, default)
        if value is not None and value not in allowed:
            listed = ", ".join(sorted(allowed))
            raise bad_parameter(
                f"Invalid {self.name_of(name)}: must be one of {listed}", self.name_of(name)
            )
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        return self.choice(name, ("true", "false"), str(default).lower()) == "true"

    def integer(self, name: str, least: int = 0, most: int = AMOUNT_MAX) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        full = self.name_of(name)
        if not _WHOLE_NUMBER.fullmatch(value):
            raise bad_parameter(f"Invalid integer: {value}", full, "parameter_invalid_integer")
        if not least <= int(value) <= most:
            bound, word = (least, "greater") if int(value) < least else (most, "less")
            raise bad_parameter(
                f"This value must be {word} than or equal to {bound}.", full, "parameter_invalid"
            )
        return int(value)

    def amount(self, name: str, least: int = 1) -> int:
        """Return a required amount in the smallest unit of the currency."""
        value = self.integer(name, least)
        if value is None:
            raise self.absent(name)
        return value

    def number(self, name: str, most: int) -> Decimal | None:
        """Return a decimal number above 0."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = Decimal(value)
            is_good = number.is_finite() and 0 < number <= most
        except InvalidOperation:
            is_good = False
        if not is_good:
            raise bad_parameter(f"Invalid decimal: {value}", self.name_of(name))
        return number

    def currency(self, name: str = "currency") -> str:
        value = self.required(name).lower()
        if not re.fullmatch("[a-z]{3}", value):
            raise bad_parameter(f"Invalid currency: {value}.", self.name_of(name))
        return value

    def child(self, name: str) -> "Parameters":
        """Return the members of an object; without it, no members."""
        self._unread.discard(name)
        value = self._values.get(name) or {}
        if not isinstance(value, dict):
            raise bad_parameter("Invalid object", self.name_of(name))
        child = Parameters(value, self.name_of(name))
        self._children.append(child)
        return child

    def children(self, name: str) -> list["Parameters"]:
        """Return the objects of a list in their order."""
        children = self.child(name)
        return [children.child(index) for index in children.indices()]

    def texts(self, name: str) -> list[str]:
        children = self.child(name)
        return [children.required(index) for index in children.indices()]

    def indices(self) -> list[str]:
        """Return the keys of this level as the positions of a list."""
        if not all(key.isdecimal() and len(key) < 5 for key in self._values):
            raise bad_parameter("Invalid array", self._path)
        if len(self._values) > LIST_MAX:
            raise bad_parameter(f"Invalid array: at most {LIST_MAX} members", self._path)
        return sorted(self._values, key=int)

    def metadata(self, held: dict[str, str] | None = None) -> dict[str, str]:
        """Return metadata merged into `held`: an empty value removes its key, `""` removes all."""
        if self._values.get("metadata") == "":
            self._unread.discard("metadata")
            return {}
        given = self.child("metadata")
        merged = dict(held or {})
        for key in list(given._values):
            value = given.text(key)
            if len(key) > METADATA_KEY_MAX_CHARACTERS:
                raise bad_parameter(
                    f"Metadata keys can have up to {METADATA_KEY_MAX_CHARACTERS} characters.",
                    given.name_of(key),
                )
            if value is None:
                merged.pop(key, None)
            elif len(value) > METADATA_VALUE_MAX_CHARACTERS:
                raise bad_parameter(
                    f"Metadata values can have up to {METADATA_VALUE_MAX_CHARACTERS} characters.",
                    given.name_of(key),
                )
            else:
                merged[key] = value
        if len(merged) > METADATA_KEYS_MAX:
            raise bad_parameter(
                f"Metadata can have up to {METADATA_KEYS_MAX} keys.", self.name_of("metadata")
            )
        return merged

    def address(self) -> Json | None:
        """Return the postal address among the members, None without one."""
        given = self.child("address")
        names = ("city", "country", "line1", "line2", "postal_code", "state")
        return {name: given.text(name) for name in names} if given else None

    def finish(self) -> None:
        """Raise Problem if a parameter was given that nothing read."""
        for child in self._children:
            child.finish()
        for name in sorted(self._unread):
            full = self.name_of(name)
            raise bad_parameter(
                f"Received unknown parameter: {full} (unknown to Stripe, or left out of this "
                "simulator)",
                full,
                "parameter_unknown",
            )


class CreatedRange:
    """The filter `created`: a second, or bounds of seconds."""

    def __init__(self, parameters: Parameters, name: str = "created") -> None:
        self.least, self.most = 0, 1 << 62
        if isinstance(parameters._values.get(name), str):
            exactly = parameters.integer(name, most=1 << 62)
            if exactly is not None:
                self.least = self.most = exactly
            return
        bounds = parameters.child(name)
        for word, margin in (("gte", 0), ("gt", 1)):
            bound = bounds.integer(word, most=1 << 61)
            if bound is not None:
                self.least = max(self.least, bound + margin)
        for word, margin in (("lte", 0), ("lt", 1)):
            bound = bounds.integer(word, most=1 << 61)
            if bound is not None:
                self.most = min(self.most, bound - margin)

    def __contains__(self, second: int) -> bool:
        return self.least <= second <= self.most
