"""What the log stream loses is settled from the file, on the whole stack."""

from tests.e2e.desk import Desk
from tests.e2e.running_stack import wait_until
from tests.e2e.test_outages import check_paid, without


def sources(desk: Desk, account_id: str) -> dict[str, str]:
    """By which log each settled generation of an account came."""
    found = desk.rows(
        "SELECT generation_id, source FROM usage_records WHERE account_id = $1", account_id
    )
    return {row["generation_id"]: row["source"] for row in found}


def test_what_was_answered_without_a_meter_is_settled_from_the_file(desk: Desk) -> None:
    """The provider keeps no record of these, so no look-up is quicker than the file."""
    customer = desk.open_account()
    desk.misbehave(times=10, omit_generation=True)
    with without(desk, "meter"):
        replies = [desk.ask(customer) for _ in range(5)]
        replies += [desk.ask(customer, stream=True) for _ in range(5)]
        assert {reply.status for reply in replies} == {200}
    replies.append(desk.ask(customer))
    wait_until(lambda: len(sources(desk, customer.id)) == 11, "every request is settled")
    check_paid(desk, customer, *replies)
    told = sources(desk, customer.id)
    assert told.pop(replies[-1].headers["x-generation-id"]) == "stream"
    # Envoy may keep some of the stream until somebody takes it again.
    assert "file" in told.values() and set(told.values()) <= {"file", "stream"}


def test_the_stream_is_normally_first(desk: Desk) -> None:
    customer = desk.open_account()
    replies = [desk.ask(customer) for _ in range(10)]
    check_paid(desk, customer, *replies)
    assert set(sources(desk, customer.id).values()) == {"stream"}
