"""Envoy's access-log stream has nobody to go to: the file tells, and nothing waits for its return.

The same for minutes: `python -m bench.outages --only stream --minutes 5`.
"""

import sys

import aiohttp

from bench.outages.away import stream_away
from bench.outages.measure import Measured, measure, prepare
from chaos.stack import ChaosStack

AWAY_S = 12.0
PER_SECOND = 25.0
SETTLED_WITHIN_S = 60.0
# The rest is under way when the stream comes back: a line is left to the stream for a second.
SHARE_SETTLED_MEANWHILE = 0.7


async def test_while_the_stream_is_away_the_file_settles(brisk_stack: ChaosStack) -> None:
    async with aiohttp.ClientSession() as session:
        payer = await prepare(brisk_stack, session)
    measured = await measure(
        brisk_stack, payer, "stream", stream_away(brisk_stack), AWAY_S, PER_SECOND
    )
    report(measured)
    assert set(measured.while_away) == {"200"}
    assert measured.settled_away["stream"] == 0
    asked = measured.while_away.total()
    assert measured.settled_away.total() >= SHARE_SETTLED_MEANWHILE * asked
    assert measured.settled_away["file"] > asked / 2
    assert measured.settled_back["stream"] > 0
    assert measured.settled_after_s is not None
    assert measured.settled_after_s < SETTLED_WITHIN_S
    assert measured.balance.is_right, measured.balance
    assert measured.balance.provisional == 0


def report(measured: Measured) -> None:
    """For those who run this with -s."""
    sys.stdout.write(
        f"\naway {measured.away_s:.0f} s, sent {measured.while_away.total()}; settled meanwhile"
        f" {dict(measured.settled_away)}, afterwards {dict(measured.settled_back)}, all within"
        f" {measured.settled_after_s} s of its return\n"
    )
