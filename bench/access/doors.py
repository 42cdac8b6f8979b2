"""The ways in: through Envoy under a hold, and straight to one authz without one."""

import json
from typing import Any, Final, Protocol

import aiohttp
import grpc.aio

from authz.protos.ext_authz_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    HeaderMap,
    HeaderValue,
)
from authz.transports.transport import PATH

OK: Final = 200
GRPC_OK: Final = 0
ANSWER_TIMEOUT_S: Final = 5.0


class Door(Protocol):
    """One way in."""

    async def lets_in(self, credential: str) -> bool:
        """Return whether a request with this credential is let in. Raises on any surprise."""
        ...


class Gateway:
    """An inference request through Envoy: a hold judges the credential."""

    def __init__(self, session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._body = json.dumps(body).encode()

    async def status(self, credential: str) -> int:
        """The status that a client sees."""
        headers = {"authorization": f"Bearer {credential}", "content-type": "application/json"}
        async with self._session.post(self._url, data=self._body, headers=headers) as reply:
            await reply.read()
            return reply.status

    async def lets_in(self, credential: str) -> bool:
        """True if it was answered."""
        return await self.status(credential) == OK


class Unmetered:
    """A check of a route without metering, at one authz: only its memory judges the credential."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._check = channel.unary_unary(
            PATH,
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )

    async def lets_in(self, credential: str) -> bool:
        """True if it said yes."""
        bearer = HeaderValue(key="authorization", raw_value=f"Bearer {credential}".encode())
        http = AttributeContext.HttpRequest(
            method="GET", path="/anything", header_map=HeaderMap(headers=[bearer])
        )
        attributes = AttributeContext(
            request=AttributeContext.Request(http=http),
            context_extensions={"metering": "off", "scope": "models:read"},
        )
        answer = await self._check(CheckRequest(attributes=attributes), timeout=ANSWER_TIMEOUT_S)
        return bool(answer.status.code == GRPC_OK)
