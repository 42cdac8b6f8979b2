"""The administrator of a campaign: accounts, keys, passes, and their ends."""

from dataclasses import dataclass, field
from typing import Any

import aiohttp


class AdministratorRefused(Exception):
    """The meter API did not do what a campaign needs."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Something to present, and how it is ended: a method and a path of the administrator's."""

    kind: str
    text: str = field(repr=False)
    ending: tuple[str, str, object]


class Administrator:
    """Calls the meter API as the operator."""

    def __init__(self, session: aiohttp.ClientSession, api: str, token: str) -> None:
        self._session = session
        self._url = f"{api}/api/v1/admin"
        self._headers = {"authorization": f"Bearer {token}"}

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """One call that must succeed. Raises AdministratorRefused."""
        headers = {**self._headers, "idempotency-key": path.replace("/", "-")}
        async with self._session.request(
            method, self._url + path, json=body, headers=headers
        ) as reply:
            if reply.status >= 400:
                raise AdministratorRefused(f"{method} {path}: {reply.status} {await reply.text()}")
            return await reply.json() if reply.status != 204 else None

    async def open_account(self, account_id: str, plan: str = "unlimited") -> None:
        """An account with credit."""
        user = {"id": account_id, "email": f"{account_id}@example.com", "plan": plan}
        await self.ask("POST", "/users", user)
        credit = {"amount": "1000.00", "reason": "campaign"}
        await self.ask("POST", f"/users/{account_id}/credits", credit)

    async def key(self, account_id: str) -> Credential:
        """A new key; it ends by being revoked."""
        made = await self.ask("POST", f"/users/{account_id}/api-keys", {"name": "campaign"})
        path = f"/users/{account_id}/api-keys/{made['id']}"
        return Credential("key", made["key"], ("DELETE", path, None))

    async def jwt(self, account_id: str) -> Credential:
        """A new pass; it ends by being revoked."""
        made = await self.ask("POST", f"/users/{account_id}/passes", {})
        path = f"/users/{account_id}/passes/{made['jti']}"
        return Credential("pass", made["access_token"], ("DELETE", path, None))

    async def suspendable(self, account_id: str) -> Credential:
        """A key of a new account; it ends by the account's being suspended."""
        await self.open_account(account_id)
        made = await self.ask("POST", f"/users/{account_id}/api-keys", {"name": "campaign"})
        return Credential("account", made["key"], ("POST", f"/users/{account_id}/suspend", None))
