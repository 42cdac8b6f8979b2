"""The servers that tests and the stack start are what they claim to be."""

from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from tollkeeper.stack.errors import StackError
from tollkeeper.stack.servers import postgres
from tollkeeper.stack.servers.binaries import postgres_binaries
from tollkeeper.stack.servers.postgres import PostgresServer
from tollkeeper.stack.servers.privileges import run_as


async def test_postgres_is_durable_and_off_the_network(postgres_server: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres_server.dsn(postgres.SUPERUSER, "postgres"))
    try:
        names = ("fsync", "synchronous_commit", "listen_addresses", "server_version_num")
        found = {name: await connection.fetchval(f"SHOW {name}") for name in names}
    finally:
        await connection.close()
    assert found["fsync"] == "on"
    assert found["synchronous_commit"] == "on"
    assert found["listen_addresses"] == ""
    assert found["server_version_num"].startswith("18")


async def test_roles_are_made_once(postgres_server: PostgresServer) -> None:
    for _ in range(2):
        await postgres.create_roles_and_database(postgres_server, "roles_made_once")
    dsn = postgres_server.dsn(postgres.SERVICE_ROLE, "roles_made_once")
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT current_user") == postgres.SERVICE_ROLE
    finally:
        await connection.close()


def test_data_of_another_version_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    server = PostgresServer(postgres_binaries(), data, tmp_path / "pg", run_as(data, "INT"))
    server.run_as.make_private_directory(data)
    with pytest.raises(StackError, match="is not a Postgres data folder"):
        server.prepare()
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackError, match="is of version 17 but this server is 18"):
        server.prepare()


async def test_redis_is_empty_for_each_test(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "over")


async def test_redis_is_still_empty_for_the_next(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
