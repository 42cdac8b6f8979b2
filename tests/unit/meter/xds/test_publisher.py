"""The publisher of clusters: its file, the Envoys that ask, and what it says of refusals."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from meter.errors import StoreUnavailable
from meter.ingest.log_file.envoy_admin import EnvoyAdmin
from meter.xds.clusters import UpstreamProvider
from meter.xds.publisher import (
    DELIVERIES_OF_A_REFUSAL,
    MOST_NODES,
    ClusterPublisher,
    Upstreams,
)

OPENAI = UpstreamProvider("openai", "https://api.openai.com/v1")
LOCAL = UpstreamProvider("local", "http://10.0.0.7:8000/v1")


@dataclass
class Books:
    """The providers that are stored, or an outage."""

    found: Upstreams | None = field(default_factory=Upstreams)

    async def load(self) -> Upstreams:
        if self.found is None:
            raise StoreUnavailable("Postgres is away")
        return self.found


@dataclass
class Admin:
    """The counters of an Envoy."""

    found: dict[str, int] = field(default_factory=dict)

    async def counters(self, _: str) -> Mapping[str, int]:
        return self.found


def publisher(
    books: Books, file: Path | None = None, admin: Admin | None = None
) -> ClusterPublisher:
    return ClusterPublisher(books.load, file, cast("EnvoyAdmin | None", admin), CollectorRegistry())


async def test_the_file_has_the_last_clusters_also_through_an_outage(tmp_path: Path) -> None:
    file, books = tmp_path / "clusters" / "clusters.json", Books()
    made = publisher(books, file)
    await made.refresh()
    assert json.loads(file.read_bytes())["resources"] == []
    books.found = Upstreams((OPENAI,))
    await made.refresh()
    books.found = None
    with pytest.raises(StoreUnavailable):
        await made.refresh()
    (cluster,) = json.loads(file.read_bytes())["resources"]
    assert cluster["name"] == "provider-openai"
    assert [one.name for one in file.parent.iterdir()] == [file.name]


async def test_two_meters_that_differ_do_not_overwrite_each_other_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "clusters.json"
    older, newer = publisher(Books(Upstreams((OPENAI,))), file), Books(Upstreams((LOCAL,)))
    await older.refresh()
    await publisher(newer, file).refresh()
    written = file.read_bytes()
    await older.refresh()
    assert file.read_bytes() == written
    file.unlink()
    await older.refresh()
    assert b"provider-openai" in file.read_bytes()


async def test_an_envoy_that_asks_gets_what_it_does_not_have() -> None:
    made = publisher(Books(Upstreams((OPENAI,))))
    with pytest.raises(StoreUnavailable):
        made.asked_by("a", "", None)
    await made.refresh()
    clusters = made.asked_by("a", "", None)
    assert clusters is not None
    assert made.asked_by("a", clusters.version, None) is None
    assert made.problem is None


async def test_an_envoy_that_keeps_its_version_has_refused() -> None:
    made = publisher(Books(Upstreams((OPENAI,))))
    await made.refresh()
    for _ in range(DELIVERIES_OF_A_REFUSAL):
        assert made.problem is None
        made.asked_by("a", "older", None)
    assert "Envoy a refuses the clusters" in str(made.problem)
    assert made.current is not None
    made.asked_by("a", made.current.version, None)
    assert made.problem is None
    made.asked_by("b", "older", "unknown member " + "x" * 10_000)
    assert "unknown member" in str(made.problem)
    assert len(str(made.problem)) < 1_000


async def test_the_number_of_envoys_that_are_remembered_is_bounded() -> None:
    made = publisher(Books())
    await made.refresh()
    for number in range(MOST_NODES + 10):
        made.asked_by(str(number), "older", "no")
    assert str(made.problem).count("refuses") <= MOST_NODES


async def test_a_provider_that_cannot_be_rendered_does_not_take_the_others_along() -> None:
    made = publisher(Books(Upstreams((OPENAI, UpstreamProvider("odd", "nonsense")))))
    await made.refresh()
    assert made.current is not None
    assert made.current.names == ("provider-openai",)
    assert "odd: 'nonsense' is no base URL" in str(made.problem)


async def test_the_envoy_beside_is_asked_what_it_has() -> None:
    admin = Admin({"cluster_manager.cds.update_success": 1})
    made = publisher(Books(Upstreams((OPENAI,))), admin=admin)
    await made.look()
    await made.refresh()
    await made.look()
    assert made.problem == "Envoy has not taken provider-openai"
    admin.found["cluster.provider-openai.membership_total"] = 1
    admin.found["cluster_manager.cds.update_rejected"] = 1
    await made.look()
    assert "refused the last change" in str(made.problem)
    admin.found["cluster_manager.cds.update_success"] = 2
    await made.look()
    assert made.problem is None
    # Started anew with a file that it refuses.
    admin.found = {"cluster_manager.cds.update_rejected": 1}
    await made.look()
    assert "has not taken provider-openai" in str(made.problem)
