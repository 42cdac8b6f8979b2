"""Turns signals into an event that asks a process to end."""

import asyncio
import signal


def stop_event(*numbers: signal.Signals) -> asyncio.Event:
    """Return an event that the first of these signals sets; they no longer end the process."""
    event = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event
