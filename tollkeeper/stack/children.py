"""What a child must know from birth: when its parent dies, so does it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` that asks the kernel to signal the child when the parent is gone.

    A parent killed with SIGKILL cannot clean up after itself; the kernel can.
    Only Linux knows this; elsewhere the function does nothing.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        # The parent may have died before the request above was made.
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel
