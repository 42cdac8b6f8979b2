"""Writes the tables of docs/clients.md from one run."""

from typing import Any, Final

from tests.foreign.agents import AgentRun
from tests.foreign.clients import STATUSES
from tests.foreign.running import Outcome
from tests.foreign.upstreams import UpstreamRun
from tests.paths import ROOT

PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- begin: made by make foreign -->", "<!-- end -->"
COLUMNS: Final = (
    "chat",
    "chat stream",
    "chat tools",
    "chat JSON schema",
    "chat with image",
    "embeddings",
    "models",
    "responses",
    "responses stream",
    "responses tools",
    "messages",
    "messages stream",
    "messages tools",
    "count tokens",
)


def write_page(
    outcomes: list[Outcome], agents: list[AgentRun], upstreams: list[UpstreamRun]
) -> None:
    """Put the tables of a whole run into the page, between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    parts = {
        "Features": _matrix(outcomes),
        "Further features": _further(outcomes),
        "Classes of errors": _errors(outcomes),
        "Coding agents": _agents(agents),
        "Upstreams": _upstreams(upstreams),
    }
    made = "\n".join(f"## {title}\n{table}" for title, table in parts.items())
    PAGE.write_text(f"{before}{BEGIN}\n{made}{END}{after}", encoding="utf-8")


def _matrix(outcomes: list[Outcome]) -> str:
    """One row for each client, one column for each feature that most of them have."""
    lines = [f"| client | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for outcome in outcomes:
        cells = (_cell(outcome.features.get(name)) for name in COLUMNS)
        lines.append(f"| {outcome.client.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(told: dict[str, Any] | None) -> str:
    if told is None:
        return ""
    return f"`{told['error']}`" if told.get("error") else "yes"


def _further(outcomes: list[Outcome]) -> str:
    """One row for each feature that few clients have."""
    names = {name: None for outcome in outcomes for name in outcome.features}
    lines = ["| feature | works with | refused |", "|---|---|---|"]
    for name in names:
        if name in COLUMNS:
            continue
        told = {one.client.name: one.features[name] for one in outcomes if name in one.features}
        works = [client for client, one in told.items() if not one.get("error")]
        refused = [
            f"{client}: `{one['error']}`" for client, one in told.items() if one.get("error")
        ]
        lines.append(f"| {name} | {', '.join(works)} | {', '.join(refused)} |")
    return "\n".join(lines) + "\n"


def _errors(outcomes: list[Outcome]) -> str:
    head = " | ".join(map(str, STATUSES))
    lines = [f"| client | {head} |", f"|---|{'---|' * len(STATUSES)}"]
    for outcome in outcomes:
        cells = (
            f"`{told['error']}`" if (told := outcome.errors.get(status, {})).get("error") else "-"
            for status in STATUSES
        )
        title = f"{outcome.client.name} {outcome.client.version()}"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _agents(agents: list[AgentRun]) -> str:
    lines = ["| agent | endpoint | wrote a file by its tool, and ended |", "|---|---|---|"]
    lines += [
        f"| {one.name} {one.version} | `{one.endpoint}` | {'yes' if one.is_complete else 'no'} |"
        for one in agents
    ]
    return "\n".join(lines) + "\n"


def _upstreams(upstreams: list[UpstreamRun]) -> str:
    lines = [
        "| upstream | names usage | reply charged by | stream charged by |",
        "|---|---|---|---|",
    ]
    lines += [f"| {one.name} | {one.usage} | {' | '.join(one.evidence)} |" for one in upstreams]
    return "\n".join(lines) + "\n"
