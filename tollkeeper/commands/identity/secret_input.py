"""Reads secrets, but not from the command line, which all users of a machine can read."""

import sys

import typer

from tollkeeper.errors import CommandError


def read_secret(what: str) -> str:
    """Return a line of standard input, or text typed unseen; raises CommandError if it is empty."""
    if sys.stdin.isatty():
        secret = str(typer.prompt(what, hide_input=True, err=True))
    else:
        secret = sys.stdin.readline()
    if not secret.strip():
        raise CommandError("No key was given; write it to standard input.")
    return secret.strip()
