"""The addresses of the dialects, each of which can be made to refuse connections."""

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web

from tollkeeper.simulator.dialects.dialect import ProviderDialect

ACCEPT_BACKLOG = 1_024


class Listener:
    """One application at one address."""

    def __init__(
        self,
        app: web.Application,
        dialect: ProviderDialect,
        host: str,
        port: int,
        drain_seconds: float,
    ) -> None:
        self.dialect = dialect
        self._host = host
        self._port = port
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=drain_seconds)
        self._site: web.TCPSite | None = None
        self._switching = asyncio.Lock()

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self._port}{self.dialect.base_path}"

    @property
    def is_listening(self) -> bool:
        return self._site is not None

    async def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        await self._runner.setup()
        await self.switch(True)

    async def close(self) -> None:
        """Stop listening and give open requests their time to end."""
        await self._runner.cleanup()

    async def switch(self, is_on: bool) -> None:
        """Refuse connections and abort those that are open, or listen again."""
        async with self._switching:
            if is_on and self._site is None:
                site = web.TCPSite(self._runner, self._host, self._port, backlog=ACCEPT_BACKLOG)
                await site.start()
                self._site = site
            elif not is_on and self._site is not None:
                await self._site.stop()
                self._site = None
                server = self._runner.server
                for connection in server.connections if server is not None else []:
                    if connection.transport is not None:
                        connection.transport.abort()


class Switches:
    """Handlers that list the dialects of this process and switch them off and on."""

    def __init__(self, listeners: Mapping[str, Listener]) -> None:
        self._listeners = listeners

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/control/dialects", self.list_dialects),
            web.put("/control/dialects/{id}", self.switch),
        ]

    async def list_dialects(self, request: web.Request) -> web.Response:
        """The base URL of each dialect, and whether it listens."""
        listed = [
            {"id": name, "base_url": one.base_url, "is_listening": one.is_listening}
            for name, one in self._listeners.items()
        ]
        return web.json_response({"dialects": listed})

    async def switch(self, request: web.Request) -> web.Response:
        listener = self._listeners.get(request.match_info["id"])
        if listener is None:
            return _problem(404, f"no such dialect here; there are {', '.join(self._listeners)}")
        try:
            told = json.loads(await request.read())
        except ValueError:
            told = None
        is_on = told.get("is_listening") if isinstance(told, dict) else None
        if not isinstance(is_on, bool):
            return _problem(400, 'the body must be {"is_listening": true} or false')
        await listener.switch(is_on)
        return await self.list_dialects(request)


def _problem(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)
