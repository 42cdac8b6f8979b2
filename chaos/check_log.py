"""Envoy's file log against the books: whoever was let through had a hold."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from chaos.books import Books
from chaos.stack import ChaosStack
from chaos.verdict import Findings

_ABSENT: Final = (None, "", "-")


def read_log(stack: ChaosStack, kept: Path) -> Iterator[dict[str, Any]]:
    """All lines that are whole, of the file, of what it was rotated to, and of what we took."""
    log = stack.access_log
    for path in (*log.parent.glob(f"{log.name}*"), *kept.iterdir()):
        for line in path.read_bytes().split(b"\n"):
            try:
                found = json.loads(line)
            except ValueError:
                # An Envoy that is killed leaves half a line, and the next one goes on in it.
                continue
            if isinstance(found, dict):
                yield found


def check_log(books: Books, lines: Iterator[dict[str, Any]], findings: Findings) -> int:
    """Every line names a hold that stands in the books; returns how many lines there were."""
    owners = {hold.id: hold.account_id for hold in books.holds}
    count, unknown, unheld, foreign = 0, list[str](), list[str](), list[str]()
    for line in lines:
        count += 1
        hold_id = line.get("hold_id")
        if hold_id in _ABSENT:
            if line.get("route") == "inference" and line.get("details") == "via_upstream":
                unheld.append(str(line.get("request_id")))
        elif UUID(hold_id) not in owners:
            unknown.append(hold_id)
        elif line.get("account_id") not in (*_ABSENT, owners[UUID(hold_id)]):
            foreign.append(hold_id)
    findings.require_none("V6", "log lines whose hold is not in the books", unknown)
    findings.require_none("V6", "log lines of the upstream's answers without a hold", unheld)
    findings.require_none("V6", "log lines that name another account than the hold", foreign)
    return count
