"""``check --from`` and ``check --ssh``: another machine beside this one, with a network of its own and an sshd.

It is reached at ``FAR`` and reaches this one at ``NEAR``; the public addresses lead nowhere from there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep, Told
from tests.lab.namespaces import call_in_network
from tests.live.public import FAR, NEAR, PUBLIC, in_public_network, needs_network, neighbour
from tests.live.servers import Binary, Server, available, running, until
from tests.live.sshd import Sshd, keygen

pytestmark = [
    pytest.mark.live,
    needs_network,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/usr/sbin/sshd").exists(), reason="needs root and openssh-server"
    ),
]

PASSWORD = "a4f09c1be77d4c55b12f8e02d9c3a6e1"
OPEN = f"bind 127.0.0.1 {NEAR} {PUBLIC}\nprotected-mode no\n"


@pytest.fixture
def binary() -> Binary:
    return available()[-1]


@dataclass
class Neighbour:
    """The other machine, and somebody here who may log in there."""

    run: Redkeep
    sshd: Sshd
    network: Path

    def check(self, *words: str, env: dict[str, str] | None = None) -> Told:
        return self.run("check", *words, env=env)

    def findings(self, rule: str, *words: str, env: dict[str, str] | None = None) -> list[Any]:
        told = self.check(*words, "--json", env=env)
        assert told.status in (0, 3), told.everything
        return [f for f in told.json["findings"] if f["rule"] == rule]

    @property
    def known_hosts(self) -> Path:
        return self.run.folder / ".ssh/known_hosts"


@contextmanager
def beside(folder: Path, *addresses: str, settings: tuple[str, ...] = ()) -> Iterator[Neighbour]:
    """``addresses``: further ones on the neighbour's loopback interface. ``app`` is an alias of its login."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    key = keygen(home / ".ssh/id_ed25519")
    place = Path(tempfile.mkdtemp(prefix="redkeep-sshd-"))
    place.chmod(0o755)  # sshd reads authorized keys as the user who logs in
    try:
        with neighbour(*addresses) as network:
            sshd = Sshd(place, settings, port=22, address=FAR, network=network)
            shutil.copy(key.with_suffix(".pub"), sshd.authorized)
            sshd.start()
            try:
                public = sshd.host_key.with_suffix(".pub").read_text()
                (home / ".ssh/known_hosts").write_text(f"{FAR} {public}")
                (home / ".ssh/config").write_text(f"Host app\n  HostName {FAR}\n  User root\n")
                yield Neighbour(Redkeep(home, environment={"HOME": str(home)}), sshd, network)
            finally:
                sshd.stop()
    finally:
        shutil.rmtree(place)


@contextmanager
def one_node(binary: Binary, folder: Path, announced: str) -> Iterator[Server]:
    """A Cluster of one node that hands out this address."""
    text = f"cluster-enabled yes\ncluster-announce-ip {announced}\n{OPEN}"
    with running(binary, folder / "node", text) as server:
        server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: server.client().cluster("INFO")["cluster_state"] == "ok")
        yield server


def test_an_address_that_leads_nowhere_from_there(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        with beside(tmp_path) as app, one_node(binary, tmp_path, PUBLIC) as server:
            target = f"{NEAR}:{server.port}"
            assert not app.findings("announce-unroutable", target)
            (found,) = app.findings("announce-unroutable", target, "--from", f"root@{FAR}")
            assert found["severity"] == "error"
            assert f"{PUBLIC}:{server.port} (CLUSTER SLOTS" in found["evidence"]
            assert f"from {FAR}: " in found["evidence"]
            assert "no way there" in found["evidence"]
            (found,) = app.findings("announce-unroutable", target, "--from", "app", "--from", "here")
            assert "from app: " in found["evidence"]
            told = app.check(target, "--from", "app")
            assert "reachability as seen from app" in told.stdout
            assert told.status == 3
            server.client().config_set("cluster-announce-ip", NEAR)
            assert not app.findings("announce-unroutable", target, "--from", "app")

    in_public_network(body)


def test_an_address_that_leads_to_another_server_there(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        with (
            beside(tmp_path, PUBLIC) as app,
            one_node(binary, tmp_path, PUBLIC) as server,
            running(
                binary,
                tmp_path / "other",
                f"bind {PUBLIC} 127.0.0.1\nprotected-mode no\n",
                port=server.port,
                network=app.network,
            ),
        ):
            target = f"{NEAR}:{server.port}"
            assert not app.findings("announce-unroutable", target)
            (found,) = app.findings("announce-unroutable", target, "--from", "app")
            assert "from app: another server answers there (run ID " in found["evidence"]
            server.client().config_set("cluster-announce-ip", NEAR)
            assert not app.findings("announce-unroutable", target, "--from", "app")

    in_public_network(body)


def test_servers_that_only_the_other_machine_reaches(binary: Binary, tmp_path: Path) -> None:
    """They are asked from there, as strangers where consent is missing; their machine is looked at by SSH."""
    secret = f"requirepass {PASSWORD}\n"
    password = {"REDKEEP_PASSWORD": PASSWORD}

    def body() -> None:
        with (
            beside(tmp_path, PUBLIC) as app,
            running(
                binary, tmp_path / "x", f"bind 127.0.0.1 {PUBLIC}\n{secret}", network=app.network
            ) as server,
        ):
            there = f"127.0.0.1:{server.port}"
            app.check(there, env=password).error(1, "connection refused")
            told = app.check(there, "--from", "app", "--json", env=password).json
            assert told["vantages"] == ["app"]
            assert "dangerous-commands" in {f["rule"] for f in told["findings"]}

            public = f"{PUBLIC}:{server.port}"
            told = app.check(public, "--from", "app", "--json", env=password).json
            withheld = [f for f in told["findings"] if "--allow-clear-text" in f["evidence"]]
            assert withheld, told
            (found,) = [f for f in told["findings"] if f["rule"] == "public-exposure"]
            assert "from app" in found["evidence"]
            allowed = app.check(public, "--from", "app", "--allow-clear-text", "--json", env=password).json
            assert not [f for f in allowed["findings"] if "--allow-clear-text" in f["evidence"]]

    in_public_network(body)


def test_the_loopback_of_another_machine_is_not_shown_the_password(binary: Binary, tmp_path: Path) -> None:
    """Whoever listens there at the port of a server here is not the one that the user named."""

    def body() -> None:
        secret = f"requirepass {PASSWORD}\n"
        with beside(tmp_path) as app, ExitStack() as stack:
            server = stack.enter_context(running(binary, tmp_path / "here", secret))
            other = stack.enter_context(
                running(binary, tmp_path / "there", secret, port=server.port, network=app.network)
            )
            app.check(f"127.0.0.1:{server.port}", "--from", "app", env={"REDKEEP_PASSWORD": PASSWORD})

            def told() -> dict[str, Any]:
                return dict(other.client(password=PASSWORD).info("commandstats"))

            stats = call_in_network(app.network, told)
            assert "cmdstat_ping" in stats
            assert "cmdstat_auth" not in stats

    in_public_network(body)


def test_the_machine_behind_a_login_is_looked_at(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        text = f"bind 127.0.0.1 {FAR}\nprotected-mode no\n"
        with beside(tmp_path) as app, running(binary, tmp_path / "x", text, network=app.network) as server:
            target = f"{FAR}:{server.port}"
            assert not app.findings("not-supervised", target)
            unseen = app.findings("not-checked", target)
            assert any("--ssh USER@HOST" in f["fix"] for f in unseen)
            (found,) = app.findings("not-supervised", target, "--ssh", "app")
            assert "/proc/PID/cgroup" in found["evidence"]
            assert not app.findings("not-checked", target, "--ssh", "app")

    in_public_network(body)


@pytest.mark.parametrize("option", ["--from", "--ssh"])
def test_a_host_that_is_of_no_use(option: str, binary: Binary, tmp_path: Path) -> None:
    """Three lines about it, and the rest of the check all the same."""

    def body() -> None:
        with (
            beside(tmp_path, settings=("AllowTcpForwarding no",)) as app,
            running(binary, tmp_path / "x", f"{OPEN}tcp-keepalive 0\n") as server,
        ):
            target = f"{NEAR}:{server.port}"
            for login, words in (
                ("root@10.99.0.3", "no way to 10.99.0.3"),
                ("root@nowhere.invalid", "could not be resolved"),
                (f"root@{FAR}:1", "nothing listens on that port"),
            ):
                told = app.check(target, option, login)
                assert told.status == 3, told.everything
                assert "keepalive-off" in told.stdout
                assert words in " ".join(told.stdout.split())  # as not-checked
                lines = told.stderr.splitlines()
                assert len(lines) == 3, told.everything
                assert words in lines[0]
            app.check(target, option, "not a login").error(2, "not an SSH login")
            app.sshd.new_host_key()
            told = app.check(target, option, "app")
            assert "has changed" in told.stderr, told.everything
            app.known_hosts.unlink()
            told = app.check(target, option, "app", "--yes")
            assert "not approved, and nobody to ask" in told.stderr, told.everything
            assert not app.known_hosts.exists()

    in_public_network(body)


def test_an_sshd_that_forwards_nothing(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        with (
            beside(tmp_path, settings=("AllowTcpForwarding no",)) as app,
            one_node(binary, tmp_path, PUBLIC) as server,
        ):
            target = f"{NEAR}:{server.port}"
            told = app.findings("not-checked", target, "--from", "app")
            assert any(
                "from app: sshd of app forwards nothing (AllowTcpForwarding)" in f["evidence"] for f in told
            )
            assert not app.findings("announce-unroutable", target, "--from", "app")

    in_public_network(body)
