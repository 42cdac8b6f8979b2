"""`python -m bench.first_byte`: how much later a stream begins than through plain Envoy.

Both gateways stand before the same upstream, and are asked in turns over connections that stay
open. The figures are medians over pairs.
"""

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from bench.access.administrator import Administrator
from bench.access.campaign import BODY
from bench.load import PATH
from bench.processes import envoy_running
from bench.static import write_proxy
from chaos.stack import ChaosStack, chaos_environment
from tollkeeper.stack.servers.ports import free_port

PAIRS: Final = 200
WARM_UP_PAIRS: Final = 20
# What each path is asked.
STREAMS: Final[Mapping[str, Mapping[str, object]]] = {
    PATH: {**BODY, "stream": True},
    "/v1/responses": {
        "model": BODY["model"],
        "input": "Hi",
        "max_output_tokens": 16,
        "stream": True,
    },
    "/v1/messages": {**BODY, "stream": True},
}


def first_byte_ms(
    line: http.client.HTTPConnection, headers: Mapping[str, str], path: str = PATH
) -> float:
    """Return the milliseconds from a request to the first byte of its stream, which is read out."""
    began_s = time.perf_counter()
    line.request("POST", path, json.dumps(STREAMS[path]), dict(headers))
    reply = line.getresponse()
    reply.read(1)
    took_ms = (time.perf_counter() - began_s) * 1000
    reply.read()
    if reply.status != http.client.OK:
        raise RuntimeError(f"the stream was refused with status {reply.status}")
    return took_ms


def measure(
    whole: str, key: str, plain: str, provider_key: str, pairs: int, path: str = PATH
) -> dict[str, float]:
    """Return the medians for both gateways, and of the differences, in milliseconds."""
    lines = []
    for origin, credential in ((whole, key), (plain, provider_key)):
        where = urlsplit(origin)
        line = http.client.HTTPConnection(where.hostname or "", where.port)
        headers = {"authorization": f"Bearer {credential}", "content-type": "application/json"}
        lines.append((line, headers))
    with closing(lines[0][0]), closing(lines[1][0]):
        for line, headers in lines * WARM_UP_PAIRS:
            first_byte_ms(line, headers, path)
        taken = [
            [first_byte_ms(line, headers, path) for line, headers in lines] for _ in range(pairs)
        ]
    return {
        "whole_ms": round(statistics.median(whole for whole, _ in taken), 2),
        "plain_ms": round(statistics.median(plain for _, plain in taken), 2),
        "later_ms": round(statistics.median(whole - plain for whole, plain in taken), 2),
    }


async def _customer_key(stack: ChaosStack) -> str:
    async with aiohttp.ClientSession() as session:
        administrator = Administrator(session, stack.endpoint("api"), stack.operator_token)
        await administrator.open_account("first-byte")
        return (await administrator.key("first-byte")).text


def main() -> int:
    """Measure on a stack of its own, and print the row."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_byte", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tk-first-", dir="/tmp") as folder:
        home, config = Path(folder) / "home", Path(folder) / "plain.yaml"
        with ChaosStack(home, chaos_environment(home, {}), 1).running() as stack:
            port = free_port()
            write_proxy(config, port, urlsplit(stack.endpoint("simulator")).port or 0)
            provider_key = (home / "simulator" / "provider.key").read_text().strip()
            with envoy_running(config, port):
                key = asyncio.run(_customer_key(stack))
                gateway, plain = stack.endpoint("gateway"), f"http://127.0.0.1:{port}"
                rows = {
                    path: measure(gateway, key, plain, provider_key, chosen.pairs, path)
                    for path in STREAMS
                }
    print(f"First byte of a stream, medians over {chosen.pairs} pairs:")
    for path, row in rows.items():
        print(f"{path}: {json.dumps(row)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
