"""Clients that never finish a large body take nothing from others, whoever they are."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.e2e.admin import Admin, Customer
from tests.patience import WAIT_S
from tests.servers import run_in_thread

CONNECTIONS = 200
ANNOUNCED_BYTES = 24 * 2**20
# More than the first check has, and far less than is announced.
SENT_BYTES = 200_000
# So many of them are 320 MiB, the share of an account.
HAVE_ROOM = 13
ASKED = 20


@dataclass
class Withheld:
    """Connections that have sent a part of a large body, and the answers to some of them."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def begin(self, gateway: str, key: str) -> None:
        """Send a part of a body, and wait for an answer."""
        where = urlsplit(gateway)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        self.writers.append(writer)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {ANNOUNCED_BYTES}\r\n\r\n"
        writer.write(head.encode() + b"{" + b" " * SENT_BYTES)
        line = await reader.readline()
        if line:
            self.answers.append(int(line.split()[1]))


def beside(admin: Admin, bystander: Customer, key: str, refused: int) -> Withheld:
    """Ask for another caller until so many connections are refused, and while the others stay."""

    async def asked() -> Withheld:
        withheld = Withheld()
        waiting = [
            asyncio.ensure_future(withheld.begin(admin.stack.gateway, key))
            for _ in range(CONNECTIONS)
        ]
        async with asyncio.timeout(WAIT_S):
            while len(withheld.answers) < refused:
                # 40 MB come at once, and a slow machine may not judge in time meanwhile.
                assert (await asyncio.to_thread(admin.ask, bystander)).status in (200, 503)
        # On a slow machine, the rest are told meanwhile that they took too long.
        for _ in range(ASKED):
            assert (await asyncio.to_thread(admin.ask, bystander)).status == 200
        for writer in withheld.writers:
            writer.transport.abort()
        await asyncio.gather(*waiting, return_exceptions=True)
        return withheld

    return run_in_thread(asked)


def test_connections_without_a_valid_credential_are_refused_at_once(admin: Admin) -> None:
    bystander = admin.open_account(credit="10")
    withheld = beside(admin, bystander, "tk-nonsense", CONNECTIONS)
    assert withheld.answers == [401] * CONNECTIONS


def test_an_account_that_withholds_fills_its_own_share(admin: Admin) -> None:
    bystander, holder = admin.open_account(credit="10"), admin.open_account(credit="10")
    refused = CONNECTIONS - HAVE_ROOM
    withheld = beside(admin, bystander, holder.key, refused)
    assert withheld.answers[:refused] == [429] * refused
    assert set(withheld.answers[refused:]) <= {408}
    # Its small requests are served as before, and nothing is held for the large ones.
    assert admin.ask(holder).status == 200
    admin.wait_settled(holder)
    assert admin.hold_states(holder) == {"settled": 1}
    # Others have room for large ones.
    text = [{"role": "user", "content": "a " * 100_000}]
    assert admin.ask(bystander, messages=text).status == 200
