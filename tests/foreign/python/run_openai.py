"""The package `openai`: every endpoint that it and the gateway have in common."""

import base64
import io
import json
from typing import Any

from openai import OpenAI
from probe import CLAUDE, EMBEDDINGS, KEY, MODEL, PIXEL, V1, expect, feature, main
from pydantic import BaseModel

client = OpenAI(base_url=V1, api_key=KEY, max_retries=0)
HELLO: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
ONE_PAGE_PDF = base64.b64encode(
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]"
    b"/Count 1>>endobj\n3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
).decode()
SILENCE = (
    b"RIFF" + (36 + 16000).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    + (1).to_bytes(2, "little") * 2 + (8000).to_bytes(4, "little") + (16000).to_bytes(4, "little")
    + (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    + b"data" + (16000).to_bytes(4, "little") + bytes(16000)
)  # fmt: skip


class Answer(BaseModel):
    verdict: str
    score: int


@feature("chat")
def chat() -> None:
    reply = client.chat.completions.create(model=MODEL, messages=HELLO)
    expect("Simulated" in (reply.choices[0].message.content or ""), reply)
    expect(reply.usage and reply.usage.total_tokens, reply)


@feature("chat stream")
def chat_stream() -> None:
    usage, text = None, ""
    options: Any = {"include_usage": True}
    for chunk in client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options=options
    ):
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    expect(text.startswith("Simulated") and usage, (text, usage))


@feature("chat tools")
def chat_tools() -> None:
    messages = [*HELLO]
    reply = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    calls: Any = reply.choices[0].message.tool_calls
    expect("city" in json.loads(calls[0].function.arguments), reply)
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}
    messages += [reply.choices[0].message.model_dump(exclude_none=True), result]
    reply = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
    expect(reply.choices[0].message.content, reply)


@feature("chat JSON schema")
def chat_parse() -> None:
    reply = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Answer)
    expect(isinstance(reply.choices[0].message.parsed, Answer), reply)


def ask_with(part: Any, model: str = MODEL) -> None:
    content = [{"type": "text", "text": "What is this?"}, part]
    messages: Any = [{"role": "user", "content": content}]
    reply = client.chat.completions.create(model=model, messages=messages, max_tokens=50)
    expect(reply.choices[0].message.content, reply)


@feature("chat with image")
def chat_image() -> None:
    ask_with({"type": "image_url", "image_url": {"url": PIXEL}})


@feature("chat with PDF")
def chat_pdf() -> None:
    data = f"data:application/pdf;base64,{ONE_PAGE_PDF}"
    ask_with({"type": "file", "file": {"filename": "a.pdf", "file_data": data}}, CLAUDE)


@feature("chat with sound")
def chat_sound() -> None:
    sound = {"data": base64.b64encode(SILENCE).decode(), "format": "wav"}
    ask_with({"type": "input_audio", "input_audio": sound}, "google/gemini-2.5-flash")


@feature("chat with web search")
def chat_search() -> None:
    reply = client.chat.completions.create(
        model="perplexity/sonar-pro", messages=HELLO, web_search_options={}
    )
    expect(reply.choices[0].message.content, reply)


@feature("completions")
def completions() -> None:
    reply = client.completions.create(
        model="openai/gpt-3.5-turbo-instruct", prompt="Say", max_tokens=9
    )
    expect(reply.choices[0].text, reply)


@feature("embeddings")
def embeddings() -> None:
    reply = client.embeddings.create(model=EMBEDDINGS, input=["a", "b"])
    expect(len(reply.data) == 2 and reply.data[0].embedding, reply.usage)


@feature("models")
def models() -> None:
    expect(MODEL in {model.id for model in client.models.list()}, "no such model")


@feature("responses")
def responses() -> None:
    reply = client.responses.create(model=MODEL, input="Hello")
    expect("Simulated" in reply.output_text, reply)
    expect(reply.usage and reply.usage.total_tokens, reply)


@feature("responses stream")
def responses_stream() -> None:
    with client.responses.stream(model=MODEL, input="Hello") as stream:
        for _ in stream:
            pass
        reply = stream.get_final_response()
    expect("Simulated" in reply.output_text and reply.usage, reply)


@feature("responses tools")
def responses_tools() -> None:
    given: list[Any] = [{"role": "user", "content": "Hello"}]
    reply = client.responses.create(model=MODEL, input=given, tools=[FLAT_TOOL])
    (call,) = [item for item in reply.output if item.type == "function_call"]
    expect("city" in json.loads(call.arguments), reply)
    given += [item.model_dump(exclude_none=True) for item in reply.output]
    given += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    reply = client.responses.create(model=MODEL, input=given, tools=[FLAT_TOOL])
    expect(reply.output_text, reply)


@feature("responses JSON schema")
def responses_parse() -> None:
    reply = client.responses.parse(model=MODEL, input="Hello", text_format=Answer)
    expect(isinstance(reply.output_parsed, Answer), reply)


@feature("images")
def images() -> None:
    reply = client.images.generate(model="google/gemini-2.5-flash-image", prompt="A toll gate", n=1)
    expect(reply.data and reply.data[0].b64_json, reply)


@feature("speech")
def speech() -> None:
    reply = client.audio.speech.create(
        model="mistralai/voxtral-mini-tts-2603", voice="alloy", input="Hello"
    )
    expect(reply.content, reply)


@feature("transcriptions")
def transcriptions() -> None:
    reply = client.audio.transcriptions.create(
        model="openai/whisper-1", file=("a.wav", io.BytesIO(SILENCE), "audio/wav")
    )
    expect(reply.text, reply)


def ask(key: str = KEY, model: str = MODEL, text: str = "Hello", max_tokens: int = 9) -> None:
    messages: Any = [{"role": "user", "content": text}]
    client.with_options(api_key=key).chat.completions.create(
        model=model, messages=messages, max_tokens=max_tokens
    )


main(ask)
