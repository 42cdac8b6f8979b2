"""Secrets that commands take: never from the command line, which everybody here can read."""

import sys

import typer

from tollkeeper.errors import CommandError


def read_secret(what: str) -> str:
    """A line of standard input, or what somebody types unseen; raises CommandError for nothing."""
    if sys.stdin.isatty():
        secret = str(typer.prompt(what, hide_input=True, err=True))
    else:
        secret = sys.stdin.readline()
    if not secret.strip():
        raise CommandError("No key was given; write it to standard input.")
    return secret.strip()
