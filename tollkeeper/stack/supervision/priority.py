"""Processes that have only the processor time that others leave."""

# Linux with autogroups shares the processor among sessions, and `nice` orders the processes of one
# session only. Each of our processes has a session of its own, whose file of that name is there.
# `echo` fails where it is not, or where the kernel is asked too often; then `nice` has to do.
_SCRIPT = '{ echo "$1" >/proc/self/autogroup; } 2>/dev/null; exec nice -n "$@"'


def behind_others(niceness: int) -> tuple[str, ...]:
    """Return the words before a command that give it a lower priority: 0 (none) to 19 (lowest).

    The process must be the leader of a session.
    """
    return ("sh", "-c", _SCRIPT, "sh", str(niceness))
