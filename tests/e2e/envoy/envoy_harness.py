"""A real Envoy on the production template, between stubs that do as they are told.

The stubs stand for the decision, the provider and the meter's ingest, so that a
test can say what each of them answers and see exactly what reached it.
"""

import asyncio
import contextlib
import json
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import yaml
from aiohttp import web
from google.protobuf.json_format import MessageToDict

from authz.decision import Edit, NeedsWholeBody
from authz.policy import PARTIAL_BODY
from authz.protos import ext_authz_pb2 as pb
from authz.transports import wire
from authz.transports.http2 import Http2Transport
from authz.transports.transport import Answer
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.protos import access_log_pb2 as log_pb
from tests.patience import WAIT_S
from tollkeeper import envoy_config
from tollkeeper.stack.servers.ports import free_port

NAMESPACE = "envoy.filters.http.ext_authz"
PROVIDER_KEY = "sk-or-planted-provider-key"
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# Seconds, as the product has it.
CHECK_TIMEOUT_S = 2
CHECK_TIMEOUT_TEXT = "envoy_grpc: { cluster_name: authz }\n                        timeout: 2s\n"

Decide = Callable[[pb.CheckRequest], Awaitable[pb.CheckResponse]]
Document = dict[str, Any]
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


def header(name: str, value: str) -> pb.HeaderValueOption:
    """A header that replaces whatever was there."""
    return pb.HeaderValueOption(
        header=pb.HeaderValue(key=name, value=value),
        append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def allow(hold_id: str, edits: Iterable[tuple[int, int, str]] = ()) -> pb.CheckResponse:
    """An Allow as the authz writes it; edits are (offset, remove, insert)."""
    response = pb.CheckResponse(status=pb.Status(code=0))
    response.ok_response.headers.append(header("authorization", f"Bearer {PROVIDER_KEY}"))
    response.ok_response.headers_to_remove.extend(["x-api-key", "cookie"])
    facts: dict[str, Any] = {
        "hold_id": hold_id,
        "account_id": "acme",
        "credential_id": "abcdefghij234567",
        "model": "openai/gpt-4o",
        "endpoint": "chat_completions",
    }
    if changes := "".join(Edit(*edit).to_text() for edit in edits):
        facts["edits"] = changes
    response.dynamic_metadata.update(facts)
    return response


def error_json(code: str, message: str = "No.") -> str:
    """A body in OpenAI's error shape."""
    return json.dumps({"error": {"message": message, "type": "t", "code": code, "param": None}})


@dataclass
class Decisions:
    """The stub authz: answers with `answer`, remembers what it was asked.

    A check that has a part of a body only is told to show the whole of it, as authz tells those
    that may go on; `first_answer` replaces that.
    """

    answer: Decide
    first_answer: Decide | None = None
    checks: list[pb.CheckRequest] = field(default_factory=list)
    first_checks: list[pb.CheckRequest] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)

    async def check(self, asked: bytes) -> Answer:
        """Serve one Check call."""
        request = pb.CheckRequest.FromString(asked)
        attributes = request.attributes
        partial = int(attributes.context_extensions.get(PARTIAL_BODY, MAX_MESSAGE_BYTES))
        if len(attributes.request.http.raw_body) >= partial:
            self.first_checks.append(request)
            if self.first_answer is None:
                return Answer(wire.from_decision(NeedsWholeBody()))
            return Answer((await self.first_answer(request)).SerializeToString())
        self.checks.append(request)
        response = await self.answer(request)
        payload = response.SerializeToString()
        # Serialised first: looking for a field that is absent adds it, empty.
        hold_id = response.dynamic_metadata.fields["hold_id"].string_value
        return Answer(payload, lambda: self.taken_back.append(hold_id))


@dataclass(frozen=True, slots=True)
class Received:
    """One request as the provider saw it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((v for k, v in self.headers if k.lower() == name), None)


@dataclass
class Provider:
    """The stub provider: answers with `answer`, remembers what reached it."""

    answer: Reply
    requests: list[Received] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one request of any method and path."""
        body = await request.read()
        headers = [(k.decode(), v.decode()) for k, v in request.raw_headers]
        self.requests.append(Received(request.method, request.raw_path, headers, body))
        return await self.answer(request)


@dataclass
class Pause:
    """A place where a stub waits: `reached` tells the test so, and `over` lets the stub go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        """Wait here until the pause is over."""
        self.reached.set()
        await asyncio.wait_for(self.over.wait(), WAIT_S)


@dataclass
class Entries:
    """The stub ingest: keeps every access-log entry."""

    seen: list[log_pb.HTTPAccessLogEntry] = field(default_factory=list)

    async def stream(
        self, messages: AsyncIterator[log_pb.StreamAccessLogsMessage], _: object
    ) -> log_pb.StreamAccessLogsResponse:
        """Serve one log stream until Envoy leaves."""
        async for message in messages:
            self.seen.extend(message.http_logs.log_entry)
        return log_pb.StreamAccessLogsResponse()

    async def of(self, hold_id: str) -> log_pb.HTTPAccessLogEntry:
        """The entry with that hold id, waited for."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for entry in self.seen:
                    if metadata(entry).get(NAMESPACE, {}).get("hold_id") == hold_id:
                        return entry
                await asyncio.sleep(0.02)


def metadata(entry: log_pb.HTTPAccessLogEntry) -> dict[str, dict[str, Any]]:
    """All dynamic metadata of an entry as plain dictionaries."""
    spaces = entry.common_properties.metadata.filter_metadata
    return {name: MessageToDict(space) for name, space in spaces.items()}


async def _never(_: object) -> Any:
    raise AssertionError("nobody told this stub what to answer")


async def json_reply(_: web.Request) -> web.StreamResponse:
    """A small reply with usage, as OpenRouter sends it."""
    return web.Response(
        text=json.dumps({"id": "gen-1", "model": "openai/gpt-4o", "usage": {"cost": 0.5}}),
        content_type="application/json",
        headers={"x-generation-id": "gen-1"},
    )


@dataclass
class Gateway:
    """The running Envoy with its stubs."""

    url: str
    port: int
    folder: Path
    decisions: Decisions
    provider: Provider
    meter_api: Provider
    entries: Entries
    client: aiohttp.ClientSession
    authz_server: Http2Transport
    ingest_server: grpc.aio.Server

    def reset(self) -> str:
        """Forget earlier tests and return a new hold id that every Check is given."""
        hold_id = secrets.token_hex(16)

        async def always(_: pb.CheckRequest) -> pb.CheckResponse:
            return allow(hold_id)

        self.decisions.answer, self.provider.answer = always, json_reply
        self.decisions.first_answer = None
        self.decisions.first_checks.clear()
        for seen in (self.decisions.checks, self.provider.requests, self.meter_api.requests):
            seen.clear()
        return hold_id

    def edit_next(self, hold_id: str, edits: Iterable[tuple[int, int, str]]) -> None:
        """Have every Check answered with these edits."""

        async def edited(_: pb.CheckRequest) -> pb.CheckResponse:
            return allow(hold_id, edits)

        self.decisions.answer = edited

    async def post(
        self, body: bytes = b"{}", path: str = "/v1/chat/completions", **kwargs: Any
    ) -> tuple[int, Any, bytes]:
        """POST JSON; status, headers and body."""
        headers = {"content-type": "application/json", **kwargs.pop("headers", {})}
        async with self.client.post(self.url + path, data=body, headers=headers, **kwargs) as reply:
            return reply.status, reply.headers, await reply.read()

    async def leave(self, ready: Awaitable[object], **kwargs: Any) -> None:
        """POST, and leave as soon as `ready` is done."""
        asking = asyncio.create_task(self.post(**kwargs))
        await asyncio.wait_for(ready, WAIT_S)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    async def leave_in_reply(self) -> None:
        """POST, and leave after the first octets of the reply's body."""
        headers = {"content-type": "application/json"}
        url = f"{self.url}/v1/chat/completions"
        async with self.client.post(url, data=b"{}", headers=headers) as reply:
            await reply.content.readany()
            reply.close()

    async def counter(self, name: str) -> int:
        """A counter or gauge of Envoy; 0 before it exists."""
        found = await EnvoyAdmin(f"unix:{self.folder}/admin.sock").counters(f"^{name}$")
        return found.get(name, 0)

    def logged(self) -> list[dict[str, Any]]:
        """The lines of Envoy's JSON file log so far."""
        lines = (self.folder / "access.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    async def logged_of(self, hold_id: str) -> dict[str, Any]:
        """The file-log line with that hold id, waited for."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for line in self.logged():
                    if line.get("hold_id") == hold_id:
                        return line
                await asyncio.sleep(0.02)


async def start_authz(decisions: Decisions, address: str) -> Http2Transport:
    """Serve Check on a Unix socket, with the transport that is used in production."""
    transport = Http2Transport()
    await transport.start(decisions.check, address)
    return transport


async def start_ingest(entries: Entries, address: str) -> grpc.aio.Server:
    """Serve StreamAccessLogs on a Unix socket."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    method = grpc.stream_unary_rpc_method_handler(
        entries.stream,
        log_pb.StreamAccessLogsMessage.FromString,
        log_pb.StreamAccessLogsResponse.SerializeToString,
    )
    service = "envoy.service.accesslog.v3.AccessLogService"
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"StreamAccessLogs": method})]
    )
    server.add_insecure_port(address)
    await server.start()
    return server


async def start_http(
    provider: Provider, tls: ssl.SSLContext | None = None
) -> tuple[web.AppRunner, int]:
    """Serve every path on a free loopback port."""
    app = web.Application(client_max_size=MAX_MESSAGE_BYTES)
    app.router.add_route("*", "/{path:.*}", provider.serve)
    runner = web.AppRunner(app, keepalive_timeout=75, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    return runner, int(runner.addresses[0][1])


async def _ready(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(WAIT_S):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
    raise RuntimeError("Envoy ended before it was ready")


@dataclass(frozen=True, slots=True)
class ProviderTls:
    """A provider behind TLS: what it presents, the name asked for, the roots trusted."""

    server: ssl.SSLContext
    name: str
    trusted_ca: Path


@contextlib.asynccontextmanager
async def envoy_beside(gateway: Gateway) -> AsyncIterator[str]:
    """Run one more Envoy of the same configuration before the same stubs; give its URL."""
    port = free_port()
    document = yaml.safe_load((gateway.folder / "envoy.yaml").read_text())
    (listener,) = document["static_resources"]["listeners"]
    listener["address"]["socket_address"]["port_value"] = port
    document["admin"]["address"]["pipe"]["path"] = str(gateway.folder / f"admin-{port}.sock")
    config = gateway.folder / f"envoy-{port}.yaml"
    config.write_text(yaml.safe_dump(document))
    async with _running(config, port, gateway.folder / f"envoy-{port}.log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def _running(config: Path, port: int, log_file: Path) -> AsyncIterator[None]:
    command = envoy_config.command(config, concurrency=2)
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await _ready(port, process)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _envoy(
    addresses: envoy_config.EnvoyAddresses,
    folder: Path,
    check_timeout_s: int,
    change: Callable[[Document], None],
) -> AsyncIterator[None]:
    config, template = folder / "envoy.yaml", folder / "template.yaml"
    text = envoy_config.TEMPLATE.read_text()
    assert text.count(CHECK_TIMEOUT_TEXT) == 1
    chosen = CHECK_TIMEOUT_TEXT.replace(" 2s", f" {check_timeout_s}s")
    # The longest pause is also the time limit of each try.
    pause = f"max_interval: {check_timeout_s}s }}"
    template.write_text(
        text.replace(CHECK_TIMEOUT_TEXT, chosen).replace("max_interval: 2s }", pause)
    )
    envoy_config.write(addresses, config, template)
    document = yaml.safe_load(config.read_text())
    change(document)
    config.write_text(yaml.safe_dump(document))
    async with _running(config, int(addresses.listen.rpartition(":")[2]), folder / "envoy.log"):
        yield


@contextlib.asynccontextmanager
async def running_gateway(
    tls: ProviderTls | None = None,
    check_timeout_s: int = int(WAIT_S),
    change: Callable[[Document], None] = lambda _: None,
    *,
    has_clusters_file: bool = True,
    cors_origins: str = "",
) -> AsyncIterator[Gateway]:
    """Start the stubs and Envoy, and end them all. `change` may alter Envoy's configuration.

    Without a file of clusters Envoy asks the stub of the meter's API for them.

    The time limit of a check is far above the product's, unless a test is about it: the stub of
    authz runs in this process, which a slow machine keeps waiting.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tk-")))
        decisions, entries = Decisions(_never), Entries()
        provider, meter_api = Provider(_never), Provider(json_reply)
        authz = await start_authz(decisions, f"unix:{folder}/authz.sock")
        ingest = await start_ingest(entries, f"unix:{folder}/ingest.sock")
        runner, provider_port = await start_http(provider, tls.server if tls else None)
        stack.push_async_callback(runner.cleanup)
        meter_runner, meter_port = await start_http(meter_api)
        stack.push_async_callback(meter_runner.cleanup)
        port = free_port()
        addresses = envoy_config.EnvoyAddresses(
            listen=f"127.0.0.1:{port}",
            authz=f"unix:{folder}/authz.sock",
            ingest=f"unix:{folder}/ingest.sock",
            meter_api=f"127.0.0.1:{meter_port}",
            provider_base_url=f"{f'https://{tls.name}' if tls else 'http://127.0.0.1'}"
            f":{provider_port}/api/v1",
            trusted_ca=tls.trusted_ca if tls else None,
            access_log=folder / "access.jsonl",
            admin_socket=folder / "admin.sock",
            clusters_file=folder / "clusters" / "clusters.json" if has_clusters_file else None,
            cors_origins=cors_origins,
        )
        await stack.enter_async_context(_envoy(addresses, folder, check_timeout_s, change))
        client = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        gateway = Gateway(
            url=f"http://127.0.0.1:{port}",
            port=port,
            folder=folder,
            decisions=decisions,
            provider=provider,
            meter_api=meter_api,
            entries=entries,
            client=client,
            authz_server=authz,
            ingest_server=ingest,
        )
        try:
            yield gateway
        finally:
            await gateway.authz_server.stop(0)
            await gateway.ingest_server.stop(None)
