"""The splices that Envoy makes in a body, as a reference to compare with."""

from authz.decision import Edit


def apply_edits(raw: bytes, edits: tuple[Edit, ...]) -> bytes:
    """Return the edited body."""
    for edit in reversed(edits):
        end = edit.offset + edit.remove
        raw = raw[: edit.offset] + edit.insert.encode() + raw[end:]
    return raw
