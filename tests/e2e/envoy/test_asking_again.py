"""A check is asked again at another authz only where the first has provably not begun."""

import pytest

from authz.protos import ext_authz_pb2 as pb
from tests.e2e.envoy.envoy_harness import Document, running_gateway

ASKED = 8


def with_an_absent_authz(document: Document) -> None:
    """Give the cluster a second endpoint at which nobody listens."""
    clusters = document["static_resources"]["clusters"]
    (authz,) = [one for one in clusters if one["name"] == "authz"]
    (group,) = authz["load_assignment"]["endpoints"]
    absent = {"endpoint": {"address": {"pipe": {"path": "/nonexistent/authz.sock"}}}}
    group["lb_endpoints"].append(absent)


@pytest.mark.asyncio
async def test_an_authz_that_is_away_costs_no_request() -> None:
    async with running_gateway(change=with_an_absent_authz) as gateway:
        gateway.reset()
        for _ in range(ASKED):
            assert (await gateway.post())[0] == 200
        assert len(gateway.decisions.checks) == ASKED
        assert await gateway.counter("cluster.authz.upstream_rq_retry") > 0


@pytest.mark.asyncio
async def test_an_authz_that_fails_is_not_asked_again() -> None:
    async with running_gateway(change=with_an_absent_authz) as gateway:
        gateway.reset()

        async def fail(_: pb.CheckRequest) -> pb.CheckResponse:
            raise RuntimeError("the check has begun, and may have placed a hold")

        gateway.decisions.answer = fail
        for _ in range(ASKED):
            assert (await gateway.post())[0] == 503
        assert len(gateway.decisions.checks) == ASKED
