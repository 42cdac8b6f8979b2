"""Usage leaves a running system: as a file through Envoy, and to a sink as it comes."""

import asyncio
import csv
import io
from decimal import Decimal

from tests.e2e.admin import Admin, Customer
from tests.e2e.raw_http import send_json
from tests.patience import until
from tests.receiver import receiving
from tests.servers import run_in_thread

SCOPES = ["inference", "usage:read"]


def spend(admin: Admin, requests: int) -> tuple[Customer, Decimal]:
    """Have a new account ask so often; returns it with what it was charged."""
    payer = admin.open_account(key={"scopes": SCOPES})
    for _ in range(requests):
        assert admin.ask(payer).status == 200
    admin.wait_settled(payer)
    return payer, 5 - admin.credits(payer)["balance"]


def test_a_file_of_usage_comes_whole_through_envoy(admin: Admin) -> None:
    payer, charged = spend(admin, 3)
    path = "/api/v1/exports/usage?format=csv"
    reply = send_json(admin.stack.gateway, "GET", path, None, [payer.bearer])
    assert reply.status == 200, reply.body
    header, *rows, end = csv.reader(io.StringIO(reply.body.decode()))
    assert (end[0], int(end[1])) == ("#end", 3)
    charges = [Decimal(row[header.index("charge")]) for row in rows]
    assert (len(charges), sum(charges)) == (3, charged)
    assert "provider_cost" not in header


def test_a_sink_gets_the_usage_of_a_running_system(admin: Admin) -> None:
    async def scenario() -> None:
        async with receiving() as receiver:
            body = {
                "kind": "cloudevents",
                "url": f"{receiver.url}/events",
                "event_code": "llm.usage",
                "source": "tollkeeper",
            }
            await asyncio.to_thread(admin.call, "PUT", "sinks/e2e", body)
            try:
                payer, charged = await asyncio.to_thread(spend, admin, 2)

                def charges() -> list[Decimal]:
                    return [
                        Decimal(one["data"]["charge"])
                        for one in receiver.taken.values()
                        if one["subject"] == payer.id
                    ]

                await until(lambda: len(charges()) == 2, "both requests have arrived")
                assert sum(charges()) == charged
                shown = await asyncio.to_thread(admin.call, "GET", "sinks/e2e")
                assert (shown["state"], shown["parked"], shown["error"]) == ("active", 0, None)
            finally:
                await asyncio.to_thread(admin.call, "POST", "sinks/e2e/end")

    run_in_thread(scenario)
