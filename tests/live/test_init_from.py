"""``redkeep init --from``: the file of what runs, and what works with it on a deployment that Redkeep did not make."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from redkeep.model.spec import Spec, load
from tests.cli import Redkeep
from tests.live.deployments import linked, replicated, watched
from tests.live.fleets import acquainted, fleet
from tests.live.public import ALSO_PUBLIC, PUBLIC, in_public_network, needs_network
from tests.live.servers import Binary, available, running, until

pytestmark = pytest.mark.live

STRONG = "a4f09c1be77d4c55b12f8e02d9c3a6e1"


@pytest.fixture
def binary() -> Binary:
    return available()[0]


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path, environment={"HOME": str(tmp_path)})


def spec(folder: Path) -> Spec:
    return load((folder / "redkeep.yaml").read_text())


def test_a_primary_with_a_replica_and_a_password(binary: Binary, run: Redkeep, tmp_path: Path) -> None:
    secret = f"requirepass {STRONG}\nmasterauth {STRONG}\nmaxmemory 64mb\nmaxmemory-policy allkeys-lru\n"
    secret += "appendonly yes\nappendfsync always\ntcp-keepalive 0\n"
    with replicated(binary, tmp_path, primary=secret, replicas=(secret,), password=STRONG) as nodes:
        port = min(s.port for s in nodes)
        target = f"127.0.0.1:{nodes[0].port}"
        run("init", "--from", target).error(1, "not let in")
        run = Redkeep(tmp_path, environment={"HOME": str(tmp_path), "REDKEEP_PASSWORD": STRONG})
        told = run("init", "--from", target, "--json").ok().json
        assert told == {"file": "redkeep.yaml", "name": "main", "mode": "standalone", "hosts": ["local"]}
        text = (tmp_path / "redkeep.yaml").read_text()
        assert STRONG not in text
        found = spec(tmp_path)
        assert (found.adopted, found.mode, found.replicas, found.port) == (True, "standalone", 1, port)
        assert (found.maxmemory, found.eviction, found.tls) == (64 * 1024**2, "allkeys-lru", False)
        assert (found.persistence, found.appendfsync) == ("aof", "always")
        assert (found.engine.flavor, found.engine.version) == (
            binary.engine.flavor,
            str(binary.engine.version),
        )
        run("init", "--from", target).error(4, "already there", "--force")

        status = run("status", "--json").ok().json
        assert status["state"] == "ok"
        assert sorted(n["role"] for n in status["nodes"]) == ["primary", "replica"]
        assert {n["link"] for n in status["nodes"]} == {"up"}
        checked = run("check", "--json")
        assert "keepalive-off" in {f["rule"] for f in checked.json["findings"]}
        assert "redkeep apply" not in str(checked.json)

        for verb in (("plan",), ("apply", "--yes"), ("destroy", "--yes"), ("url",), ("recover",)):
            run(*verb).error(4, "Redkeep did not make this deployment")
        assert not (tmp_path / ".redkeep").exists()

        assert run("check", "--fix", "--yes", "--json").json["fix"]["changed"]
        assert "keepalive-off" not in {f["rule"] for f in run("check", "--json").json["findings"]}
        (tmp_path / "redkeep.yaml").write_text(
            f"{text}suppress: [{{rule: dangerous-commands, because: a test}}]\n"
        )
        kept = run("check", "--json").json
        assert {f["because"] for f in kept["suppressed"]} == {"a test"}
        assert "dangerous-commands" not in {f["rule"] for f in kept["findings"]}


def test_with_sentinels(binary: Binary, run: Redkeep, tmp_path: Path) -> None:
    with (
        replicated(binary, tmp_path) as (primary, replica),
        watched(binary, tmp_path / "s1", primary) as first,
        watched(binary, tmp_path / "s2", primary) as second,
    ):
        until(lambda: first.client().sentinel_slaves("shop"), seconds=30, what="the replica is known")
        acquainted((first, second))
        run("init", "--from", f"sentinel://127.0.0.1:{first.port}/shop").ok()
        found = spec(tmp_path)
        assert (found.name, found.mode, found.replicas, found.sentinels) == ("shop", "sentinel", 1, 2)
        assert found.sentinel_port == min(first.port, second.port)
        assert found.failover == 500
        assert run("status", "--json").ok().json["state"] == "ok"
        replica.process.kill()
        replica.process.wait(5)
        until(lambda: first.client().sentinel_slaves("shop")[0]["is_sdown"], seconds=30)
        status = run("status", "--json").json
        lost = next(n for n in status["nodes"] if n["role"] == "unreachable")
        assert lost["name"] == f"127.0.0.1:{replica.port}"
        assert status["state"] == "degraded"


def test_a_cluster(binary: Binary, run: Redkeep, tmp_path: Path) -> None:
    with fleet(binary, tmp_path) as cluster:
        run("init", "--from", f"127.0.0.1:{cluster.replica.port}").ok()
        found = spec(tmp_path)
        assert (found.mode, found.shards, found.replicas, found.failover) == ("cluster", 3, 1, 1000)
        assert found.port == min(s.port for s in cluster.all)
        assert "not the same everywhere: 0 to 1" in (tmp_path / "redkeep.yaml").read_text()
        status = run("status", "--json").ok().json
        assert status["state"] == "ok"
        assert sum(n["slots"] for n in status["nodes"]) == 16384
        assert len(run("check", "--json").json["findings"]) > 0


@needs_network
def test_hosts_are_listed_by_address(binary: Binary, tmp_path: Path) -> None:
    """A primary and its replica on two hosts; the file leads to both."""

    def body() -> None:
        run = Redkeep(tmp_path, environment={"HOME": str(tmp_path)})
        with running(binary, tmp_path / "a", f"bind {PUBLIC} 127.0.0.1\nprotected-mode no\n") as primary:
            follow = f"bind {ALSO_PUBLIC} 127.0.0.1\nprotected-mode no\nreplica-announce-ip {ALSO_PUBLIC}\n"
            follow += f"replicaof {PUBLIC} {primary.port}\n"
            with running(binary, tmp_path / "b", follow) as replica:
                until(partial(linked, replica), what="the link")
                run("init", "--from", f"{PUBLIC}:{primary.port}").ok()
                found = spec(tmp_path)
                assert [(h.name, h.public) for h in found.hosts] == [("h1", PUBLIC), ("h2", ALSO_PUBLIC)]
                assert found.clients == "public"
                assert f"# ssh: root@{PUBLIC}" in run.file.read_text()
                status = run("status", "--json").ok().json
                assert {n["name"] for n in status["nodes"]} == {
                    f"{PUBLIC}:{primary.port}",
                    f"{ALSO_PUBLIC}:{replica.port}",
                }
                run("apply", "--yes").error(4, "Redkeep did not make this deployment")

    in_public_network(body)


def test_what_cannot_be_both(run: Redkeep) -> None:
    run("init", "--from", "127.0.0.1:1", "--mode", "cluster").error(2, "--from finds the hosts")
    run("init", "--from", "127.0.0.1:1").error(1)
