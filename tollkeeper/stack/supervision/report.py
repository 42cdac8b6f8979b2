"""Progress and results for the person who started the stack."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TextIO

import typer

Kind = Literal["line", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message: progress, success (`ready`), or the reason of a failure."""

    kind: Kind
    text: str


class Reporter:
    """Shows progress at the terminal, or sends it to the command that waits for us.

    A detached supervisor has its standard output in a log; the command that
    started it reads the other end of `pipe` until `ready` or `failed`.
    """

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe

    @property
    def is_detached(self) -> bool:
        """Return whether the command that started the stack returns once everything is up."""
        return self._pipe is not None

    def line(self, text: str) -> None:
        """Show progress."""
        self._say(Message("line", text))

    def ready(self, text: str) -> None:
        """Show that everything is up; the last message."""
        self._say(Message("ready", text))
        self._close()

    def failed(self, text: str) -> None:
        """Show why the stack could not start; the last message."""
        self._say(Message("failed", text))
        self._close()

    def _say(self, message: Message) -> None:
        if self._pipe is None:
            typer.echo(message.text, err=message.kind == "failed")
            return
        # This output goes to a log, and the last message holds the demo key.
        if message.kind != "ready":
            typer.echo(message.text)
        try:
            os.write(self._pipe, (json.dumps([message.kind, message.text]) + "\n").encode())
        except BrokenPipeError:
            self._pipe = None

    def _close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def received(stream: TextIO) -> Iterator[Message]:
    """The messages of a detached supervisor until it has no more to say."""
    for line in stream:
        kind, text = json.loads(line)
        yield Message(kind, text)
