"""Our authority and certificates with real TLS: servers, replication, cluster bus, Sentinel, redis-cli and redis-py."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.cluster

from redkeep.run.pki import Pki, certificate_names
from redkeep.run.vault import Vault
from tests.live.servers import Binary, Server, available, free_port, running, until

pytestmark = pytest.mark.live

#: redis-py, whose own annotations are incomplete.
CLIENTS: Any = redis

BINARIES = [binary for binary in available() if binary.engine.tls]
NOW = datetime.now(UTC)


@pytest.fixture(params=BINARIES, ids=str)
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(Vault(tmp_path / "redkeep.yaml", "shop"))


def settings(pki: Pki, folder: Path, name: str, *, clients: str = "no", now: datetime = NOW) -> str:
    """The files of a host, and the settings that name them; plain port closed, everything encrypted."""
    folder.mkdir(parents=True, exist_ok=True)
    issued = pki.certificate(name, certificate_names(f"{name}.example"), now)
    files = {"host.crt": issued.certificate, "host.key": issued.key, "ca.crt": issued.trusted}
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return (
        f"tls-cert-file {folder}/host.crt\ntls-key-file {folder}/host.key\ntls-ca-cert-file {folder}/ca.crt\n"
        f"tls-replication yes\ntls-auth-clients {clients}\n"
    )


def trusting(server: Server) -> Server:
    server.defaults = {"ssl": True, "ssl_ca_certs": str(server.folder / "ca.crt")}
    return server


def test_clients_verify_the_server(binary: Binary, pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with running(binary, folder, settings(pki, folder, "sz-1"), tls=True) as plain:
        server = trusting(plain)
        for address in ("127.0.0.1", "localhost"):
            arguments = {"ssl_ca_certs": str(folder / "ca.crt"), "ssl_check_hostname": True}
            with CLIENTS.Redis(address, server.port, ssl=True, **arguments) as client:
                assert client.ping()
        stranger = Pki(Vault(tmp_path / "elsewhere" / "redkeep.yaml", "other"))
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "wrong.crt").write_bytes(stranger.authority(NOW))
        with (
            server.client(ssl_ca_certs=str(tmp_path / "wrong.crt")) as client,
            pytest.raises(redis.ConnectionError),
        ):
            client.ping()
        with CLIENTS.Redis(port=server.port, socket_timeout=2) as clear, pytest.raises(redis.RedisError):
            clear.ping()


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="no redis-cli here")
def test_redis_cli(binary: Binary, pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with running(binary, folder, settings(pki, folder, "sz-1"), tls=True) as server:
        command = ["redis-cli", "-p", str(server.port), "--tls", "--cacert", f"{folder}/ca.crt", "ping"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        assert done.stdout.strip() == "PONG"


def test_replication_where_clients_must_show_a_certificate(binary: Binary, pki: Pki, tmp_path: Path) -> None:
    """``tls-auth-clients yes`` proves the client usage: the replica comes with its host's certificate."""
    a, b = tmp_path / "a", tmp_path / "b"
    with ExitStack() as stack:
        primary = trusting(
            stack.enter_context(running(binary, a, settings(pki, a, "a", clients="yes"), tls=True))
        )
        text = settings(pki, b, "b", clients="yes") + f"replicaof 127.0.0.1 {primary.port}\n"
        replica = trusting(stack.enter_context(running(binary, b, text, tls=True)))
        own = {"ssl_certfile": f"{b}/host.crt", "ssl_keyfile": f"{b}/host.key"}
        client = stack.enter_context(replica.client(**own))
        until(lambda: client.info("replication")["master_link_status"] == "up", what="the link")
        with primary.client() as bare, pytest.raises(redis.RedisError):
            bare.ping()


def test_cluster_bus(binary: Binary, pki: Pki, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    with ExitStack() as stack:
        nodes = []
        for folder in folders:
            text = (
                settings(pki, folder, folder.name)
                + "tls-cluster yes\ncluster-enabled yes\ncluster-node-timeout 2000\n"
            )
            nodes.append(trusting(stack.enter_context(running(binary, folder, text, tls=True))))
        clients = [stack.enter_context(node.client()) for node in nodes]
        for index, client in enumerate(clients):
            client.execute_command(
                "CLUSTER", "ADDSLOTS", *range(index * 5462, min(16384, (index + 1) * 5462))
            )
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[index].port)
        until(lambda: all(c.cluster("INFO")["cluster_state"] == "ok" for c in clients), what="the cluster")
        cluster = CLIENTS.cluster.RedisCluster(
            startup_nodes=[CLIENTS.cluster.ClusterNode("127.0.0.1", nodes[0].port)],
            ssl=True,
            ssl_ca_certs=str(folders[0] / "ca.crt"),
        )
        for number in range(50):
            assert cluster.set(f"k{number}", number)
        cluster.close()


def test_sentinels(binary: Binary, pki: Pki, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    with ExitStack() as stack:
        one = trusting(stack.enter_context(running(binary, a, settings(pki, a, "a"), tls=True)))
        text = settings(pki, b, "b") + f"replicaof 127.0.0.1 {one.port}\n"
        two = trusting(stack.enter_context(running(binary, b, text, tls=True)))
        ports = [free_port() for _ in range(3)]
        for index, port in enumerate(ports):
            folder = tmp_path / f"s{index}"
            watch = (
                f"sentinel monitor shop 127.0.0.1 {one.port} 2\nsentinel down-after-milliseconds shop 800\n"
                f"sentinel failover-timeout shop 4000\n"
            )
            text = settings(pki, folder, f"s{index}") + watch
            stack.enter_context(running(binary, folder, text, sentinel=True, tls=True, port=port))
        trust = {"ssl": True, "ssl_ca_certs": str(a / "ca.crt"), "socket_timeout": 5}
        known = CLIENTS.Sentinel([("127.0.0.1", port) for port in ports], sentinel_kwargs=trust, **trust)
        watchers = known.sentinels
        until(
            lambda: all(w.sentinel_master("shop")["num-other-sentinels"] == 2 for w in watchers),
            what="each other",
        )
        until(lambda: all(w.sentinel_master("shop")["num-slaves"] == 1 for w in watchers), what="the replica")
        one.process.kill()
        until(
            lambda: known.discover_master("shop") == ("127.0.0.1", two.port), seconds=30, what="the failover"
        )
        until(lambda: known.master_for("shop").set("a", "1"), what="a write")


def test_a_new_authority_replaces_the_old_one_without_a_gap(binary: Binary, pki: Pki, tmp_path: Path) -> None:
    """The vault was lost: with both trusted, a host of the new authority and one of the old one keep talking."""
    a, b = tmp_path / "a", tmp_path / "b"
    (tmp_path / "new").mkdir()
    fresh = Pki(Vault(tmp_path / "new" / "redkeep.yaml", "shop"))
    fresh.trust_also(pki.authority(NOW))
    with ExitStack() as stack:
        text = settings(pki, a, "a", clients="yes")
        both = fresh.trusted(NOW)
        (a / "ca.crt").write_bytes(both)
        primary = trusting(stack.enter_context(running(binary, a, text, tls=True)))
        follow = f"replicaof 127.0.0.1 {primary.port}\n"
        replica = trusting(
            stack.enter_context(running(binary, b, settings(fresh, b, "b", clients="yes") + follow, tls=True))
        )
        own = {"ssl_certfile": f"{b}/host.crt", "ssl_keyfile": f"{b}/host.key"}
        client = stack.enter_context(replica.client(**own))
        until(lambda: client.info("replication")["master_link_status"] == "up", what="the link")


def test_a_renewed_certificate_is_taken_without_a_restart(binary: Binary, pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    text = settings(pki, folder, "sz-1", now=NOW - timedelta(days=350))
    with running(binary, folder, text, tls=True) as plain:
        server = trusting(plain)
        with server.client() as client:
            assert client.ping()
            settings(pki, folder, "sz-1")
            assert client.config_set("tls-cert-file", f"{folder}/host.crt")
        with server.client() as client:
            client.ping()
            connection = client.connection_pool.get_connection()
            shown = connection._sock.getpeercert(binary_form=False)
            ends = datetime.strptime(shown["notAfter"], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
            assert ends > NOW + timedelta(days=300)
            client.connection_pool.release(connection)
