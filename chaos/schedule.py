"""The schedule of faults: a pure function of the seed, decided before anything runs."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from chaos.stack import KINDS

KILLS_PER_MINUTE: Final = 7
OTHERS_PER_MINUTE: Final = 9
# Nothing goes wrong in the first moments, so that there is something to lose.
CALM_START_S: Final = 2.0
# The last faults must be over when the load ends, or nothing is seen of their harm.
CALM_END_S: Final = 6.0

CRASH_POINTS: Final = (
    "authz.before_hold",
    "authz.after_hold",
    "authz.before_answer",
    "meter.before_commit",
    "meter.after_commit",
    "meter.before_position",
    "meter.after_lookup",
    "meter.before_unpark",
    "sweep.before_commit",
)
# Each with how often it is drawn, and how long it lasts at least and at most, in seconds.
_OTHERS: Final = {
    "pause": (4, 0.5, 4.0),
    "pause_long": (1, 8.0, 15.0),
    "restart": (3, 0.0, 0.0),
    "kill_several": (2, 0.0, 0.0),
    "kill_backend": (1, 0.0, 0.0),
    "end_backends": (2, 0.0, 0.0),
    "sever_stream": (3, 3.0, 12.0),
    "empty_redis": (2, 0.0, 0.0),
    "replay_file": (3, 0.0, 0.0),
    "replay_stream": (3, 0.0, 0.0),
    "rotate_log": (2, 0.0, 0.0),
    "truncate_log": (1, 0.0, 0.0),
    "crash": (8, 0.0, 0.0),
    "refuse_writes": (2, 0.5, 3.0),
    "lock_accounts": (2, 0.5, 3.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong `at_s` after the load began, for `for_s` where it lasts.

    `targets` are kinds of component, or the crash point; `draw` decides among instances.
    """

    at_s: float
    action: str
    targets: tuple[str, ...]
    for_s: float
    draw: int


def schedule(seed: int, load_s: float) -> list[Fault]:
    """All faults of a campaign in the order of their times."""
    faults = [*_kills(random.Random(f"kills {seed}"), load_s)]
    faults += _others(random.Random(f"others {seed}"), load_s)
    return sorted(faults, key=lambda fault: fault.at_s)


def to_text(faults: list[Fault]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(asdict(fault)) + "\n" for fault in faults)


def _kills(draw: random.Random, load_s: float) -> Iterator[Fault]:
    """SIGKILLs, spread over the time and evenly over the components."""
    kinds = list[str]()
    for at_s in _moments(draw, load_s, KILLS_PER_MINUTE):
        if not kinds:
            kinds = draw.sample(KINDS, len(KINDS))
        yield Fault(at_s, "kill", (kinds.pop(),), 0.0, draw.randrange(1 << 16))


def _others(draw: random.Random, load_s: float) -> Iterator[Fault]:
    """Everything else: each kind comes as often as it weighs, in a drawn order."""
    deck, points = list[str](), list[str]()
    for at_s in _moments(draw, load_s, OTHERS_PER_MINUTE):
        if not deck:
            deck = [name for name, (weight, *_) in _OTHERS.items() for _ in range(weight)]
            draw.shuffle(deck)
        if not points:
            points = draw.sample(CRASH_POINTS, len(CRASH_POINTS))
        action = deck.pop()
        _, shortest_s, longest_s = _OTHERS[action]
        for_s = round(min(draw.uniform(shortest_s, longest_s), load_s / 3), 3)
        targets = (points.pop(),) if action == "crash" else _targets(draw, action)
        yield Fault(at_s, action, targets, for_s, draw.randrange(1 << 16))


def _targets(draw: random.Random, action: str) -> tuple[str, ...]:
    if action == "kill_several":
        return tuple(draw.sample(KINDS, draw.randint(2, 3)))
    if action in ("pause", "restart"):
        return (draw.choice(KINDS),)
    if action == "pause_long":
        return (draw.choice(("authz", "meter")),)
    return ()


def _moments(draw: random.Random, load_s: float, per_minute: int) -> Iterator[float]:
    """One moment in each equal slice of the time, anywhere within it."""
    room_s = load_s - CALM_START_S - CALM_END_S
    count = max(0, round(room_s * per_minute / 60))
    for number in range(count):
        yield round(CALM_START_S + (number + draw.random()) * room_s / count, 3)
