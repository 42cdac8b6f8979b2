"""The paid endpoints: read, decide, bill, send, always in this order."""

import asyncio
import hashlib
import json

from aiohttp import web

from tollkeeper.simulator.answers.answering import Answer, Answerer
from tollkeeper.simulator.answers.errors import (
    MESSAGES_PATH,
    error_body,
    error_response,
    refuse,
)
from tollkeeper.simulator.answers.measured import content_type, measured_body
from tollkeeper.simulator.answers.misbehaviour import Behaviour, Behaviours
from tollkeeper.simulator.answers.refusal import Refusal
from tollkeeper.simulator.answers.replies import json_body, sse_events
from tollkeeper.simulator.answers.sending import has_left, pieces, send
from tollkeeper.simulator.answers.words import Vocabulary
from tollkeeper.simulator.asking import MEASURED, Endpoint, read_ask, read_measured
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.dialects.dialect import ProviderDialect
from tollkeeper.simulator.generation import Generations
from tollkeeper.simulator.keyring import Keyring
from tollkeeper.simulator.received import ReceivedRequests
from tollkeeper.simulator.reports.broadcast import Broadcast

PROCESSING_BLANK = b"\n"
LOOK_EVERY_S = 0.02


class Inference:
    """Answers inference requests."""

    def __init__(
        self,
        *,
        dialect: ProviderDialect,
        answerer: Answerer,
        vocabulary: Vocabulary,
        bill: Bill,
        generations: Generations,
        behaviours: Behaviours,
        broadcast: Broadcast,
        received: ReceivedRequests,
        keyring: Keyring,
        delay_ms: int,
    ) -> None:
        self._dialect = dialect
        self._answerer = answerer
        self._vocabulary = vocabulary
        self._bill = bill
        self._generations = generations
        self._broadcast = broadcast
        self._behaviours = behaviours
        self._received = received
        self._keyring = keyring
        self._delay_ms = delay_ms

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.CHAT_COMPLETIONS)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.COMPLETIONS)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.EMBEDDINGS)

    async def responses(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.RESPONSES)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.MESSAGES)

    async def rerank(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.RERANK)

    async def speech(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.SPEECH)

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.TRANSCRIPTIONS)

    async def images(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, Endpoint.IMAGES)

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Answer 404 to any other path, and keep the request for tests to look at."""
        self._received.add(request, await request.read())
        return error_response(self._dialect, request.path, 404, "Not Found")

    async def _handle(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        body = await request.read()
        self._received.add(request, body)
        try:
            key = self._keyring.check(request)
            if endpoint in MEASURED:
                ask = read_measured(endpoint, body, request.headers.get("Content-Type", ""))
            else:
                ask = read_ask(endpoint, body)
            # Serve with the first model that is not told to refuse, else with the last.
            for model_name in ask.model_names[: self._dialect.models_max]:
                behaviour = self._behaviours.take(model_name, ask.is_stream, request.headers)
                if not behaviour.is_failure:
                    break
            delay_ms = self._delay_ms + behaviour.delay_ms
            if delay_ms:
                await asyncio.sleep(delay_ms / 1000)
            while behaviour.until_left and not has_left(request):  # noqa: ASYNC110  # no event
                await asyncio.sleep(LOOK_EVERY_S)
            if behaviour.is_failure and not behaviour.billed:
                return await self._fail(request, behaviour, ask.is_stream, None)
            answer = self._answerer.answer(ask, model_name, behaviour)
            return await self._charge_and_reply(request, answer, behaviour, key)
        except Refusal as refusal:
            return refuse(self._dialect, request.path, refusal)

    async def _charge_and_reply(
        self, request: web.Request, answer: Answer, behaviour: Behaviour, key: str
    ) -> web.StreamResponse:
        self._generations.begin(answer)
        is_sent = False
        try:
            # Bill the answer. Raises Refusal(503) when the bill cannot be written.
            try:
                request_id = request.headers.get("X-Request-Id")
                key_sha256 = hashlib.sha256(key.encode()).hexdigest()
                await self._bill.append(answer.to_row(behaviour, request_id, key_sha256))
            except OSError:
                raise Refusal(503, "The bill could not be written") from None
            response, is_sent = await self._reply(request, answer, behaviour)
            return response
        finally:
            # A client that leaves is billed in full, as by Google and Bedrock.
            self._generations.end(answer, is_cancelled=not is_sent)
            self._broadcast.note(answer.generation_id)

    async def _reply(
        self, request: web.Request, answer: Answer, behaviour: Behaviour
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; return the response, and whether the client stayed to the end."""
        if behaviour.is_failure:
            is_named = not behaviour.omit_generation_id
            generation_id = answer.generation_id if is_named else None
            failed = await self._fail(request, behaviour, answer.ask.is_stream, generation_id)
            return failed, not has_left(request)
        if answer.ask.is_stream:
            parts = pieces(sse_events(self._dialect, answer, behaviour), behaviour.chunk_sizes)
            response = web.StreamResponse(
                headers=self._headers(answer, behaviour, "text/event-stream")
            )
            return response, await send(request, response, parts, behaviour)
        if answer.ask.endpoint in MEASURED:
            whole = measured_body(answer, behaviour, self._vocabulary)
        else:
            whole = json_body(self._dialect, answer, behaviour, self._vocabulary)
        headers = self._headers(answer, behaviour, content_type(answer))
        if behaviour.body_delay_ms:
            response = web.StreamResponse(headers=headers)
            return response, await send(request, response, [PROCESSING_BLANK, whole], behaviour)
        if behaviour.cut_after_bytes is None:
            return web.Response(body=whole, headers=headers), not has_left(request)
        response = web.StreamResponse(headers=headers)
        response.content_length = len(whole)
        return response, await send(request, response, [whole], behaviour)

    def _headers(self, answer: Answer, behaviour: Behaviour, content_type: str) -> dict[str, str]:
        headers = {"Content-Type": content_type}
        if not behaviour.omit_generation_id:
            headers |= self._dialect.headers(answer.generation_id)
        if answer.ask.is_stream:
            headers["Cache-Control"] = "no-cache"
        return headers

    async def _fail(
        self,
        request: web.Request,
        behaviour: Behaviour,
        is_stream: bool,
        generation_id: str | None,
    ) -> web.StreamResponse:
        """Answer with the failure that a behaviour asks for, under an id where it was billed."""
        if behaviour.cut_before_reply:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        response = self._failure(request.path, behaviour, is_stream)
        if generation_id is not None:
            response.headers.update(self._dialect.headers(generation_id))
        return response

    def _failure(self, path: str, behaviour: Behaviour, is_stream: bool) -> web.Response:
        if behaviour.status is not None:
            return self._refused(path, behaviour.status, behaviour)
        content_type = "text/event-stream" if is_stream else "application/json"
        body = error_body(self._dialect, path, 502, "Provider returned error")
        if is_stream:
            # Clients of Messages go by the name of an event; others read its data alone.
            name = b"event: error\n" if path.endswith(MESSAGES_PATH) else b""
            body = name + b"data: " + body + b"\n\ndata: [DONE]\n\n"
        return web.Response(body=b"" if behaviour.empty else body, content_type=content_type)

    def _refused(self, path: str, status: int, behaviour: Behaviour) -> web.Response:
        """The error body given: text as it is, anything else as JSON."""
        body = behaviour.error_body
        if body is None:
            message = f"The simulator was told to answer {status}"
            return error_response(self._dialect, path, status, message)
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html")
        return web.Response(
            status=status, body=json.dumps(body).encode(), content_type="application/json"
        )
