"""The choice of the access logs that Envoy writes and the meter reads."""

from enum import StrEnum


class AccessLogs(StrEnum):
    """The logs of an installation. docs/operations.md says what each choice loses.

    The file is the complete record and the stream the quick one; with both, neither is missed.
    """

    BOTH = "both"
    STREAM = "stream"
    FILE = "file"

    @property
    def has_stream(self) -> bool:
        """True where Envoy sends its log over gRPC."""
        return self is not AccessLogs.FILE

    @property
    def has_file(self) -> bool:
        """True where Envoy writes its log on disk."""
        return self is not AccessLogs.STREAM
