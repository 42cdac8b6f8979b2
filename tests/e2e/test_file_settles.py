"""The file settles requests that the log stream loses, and one log alone settles everything."""

from collections.abc import Callable

import pytest

from meter.ingest.access_logs import AccessLogs
from tests.e2e.admin import Admin
from tests.e2e.running_stack import RunningStack, wait_until
from tests.e2e.test_outages import check_paid, without


def sources(admin: Admin, account_id: str) -> dict[str, str]:
    """By which log each settled generation of an account came."""
    found = admin.rows(
        "SELECT generation_id, source FROM usage_records WHERE account_id = $1", account_id
    )
    return {row["generation_id"]: row["source"] for row in found}


def test_what_was_answered_without_a_meter_is_settled_from_the_file(admin: Admin) -> None:
    """The provider keeps no record of these, so no look-up is quicker than the file."""
    customer = admin.open_account()
    admin.misbehave(times=10, omit_generation=True)
    with without(admin, "meter"):
        replies = [admin.ask(customer) for _ in range(5)]
        replies += [admin.ask(customer, stream=True) for _ in range(5)]
        assert {reply.status for reply in replies} == {200}
    replies.append(admin.ask(customer))
    wait_until(lambda: len(sources(admin, customer.id)) == 11, "every request is settled")
    check_paid(admin, customer, *replies)
    told = sources(admin, customer.id)
    assert told.pop(replies[-1].headers["x-generation-id"]) == "stream"
    # Envoy may keep some of the stream until somebody takes it again.
    assert "file" in told.values() and set(told.values()) <= {"file", "stream"}


def test_the_stream_is_normally_first(admin: Admin) -> None:
    customer = admin.open_account()
    replies = [admin.ask(customer) for _ in range(10)]
    check_paid(admin, customer, *replies)
    assert set(sources(admin, customer.id).values()) == {"stream"}


@pytest.mark.parametrize("logs", [AccessLogs.FILE, AccessLogs.STREAM])
def test_one_log_alone_settles_everything(
    make_stack: Callable[[], RunningStack], logs: AccessLogs
) -> None:
    stack = make_stack()
    stack.environment["TOLLKEEPER_ACCESS_LOGS"] = logs
    stack.up()
    admin = Admin(stack)
    customer = admin.open_account()
    replies = [admin.ask(customer, stream=bool(number % 2)) for number in range(10)]
    check_paid(admin, customer, *replies)
    assert set(sources(admin, customer.id).values()) == {logs.value}
    assert (stack.home / "envoy" / "access.jsonl").exists() == logs.has_file
    stack.down()
