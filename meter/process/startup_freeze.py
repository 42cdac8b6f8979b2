"""Python's garbage collector, set for a service that makes many short-lived objects."""

import gc
from typing import Final

# Objects made since the last collection before the youngest are looked at; the default of 700
# means several collections for every request.
YOUNGEST_OBJECTS: Final = 20_000
COLLECTIONS_PER_OLDER: Final = 20


def spare_long_lived_objects() -> None:
    """Call it once everything is put together: what lives now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST_OBJECTS, COLLECTIONS_PER_OLDER, COLLECTIONS_PER_OLDER)
