"""A deployment on this machine, made by ``redkeep apply``, whose primaries are killed, frozen or changed as planned."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from redis import Redis
from redis.exceptions import RedisError

from redkeep.model.slots import key_slot
from tests.cli import Redkeep
from tests.ports import free_block

Mode = Literal["sentinel", "cluster"]
Fault = Literal["kill", "freeze", "switchover"]

#: Seconds that a busy machine may take for anything.
PATIENCE = 120.0

#: A crash that its host reports is over before a library notices; what is looked at is the slow way, as of a lost host.
_TEXT = """\
name: {name}
mode: {mode}
hosts: [local]
port: {port}
sentinel_port: {sentinel_port}
failover: fast
crash_failover: false
drills: allowed
"""


class Stage:
    """``tags`` are hash tags, one for each shard."""

    def __init__(self, mode: Mode, folder: Path, more: str = "") -> None:
        self.mode: Mode = mode
        self.run = Redkeep(folder, environment={"HOME": str(folder)}, timeout=300)
        first = free_block(10)
        self.name = f"clients-{mode}-{first}"
        self.run.write(_TEXT.format(name=self.name, mode=mode, port=first, sentinel_port=first + 6) + more)
        self._frozen: list[int] = []
        self.password = ""
        self.nodes: list[tuple[str, int]] = []
        self.sentinels: list[str] = []
        self.tls: dict[str, Any] = {}

    def make(self) -> None:
        applied = self.run("apply", "--yes", "--json").ok().json
        assert applied["verified"]["ok"], applied
        seen = self.run("url", "--user", "admin", "--reveal", "--json").ok().json
        self._admin = seen["password"]
        self.tls = {"ssl": True, "ssl_ca_certs": seen["ca"]} if seen["tls"] else {}
        self.password = self.run("url", "--reveal", "--json").ok().json["password"]
        found = [(e["kind"], e["address"].rpartition(":")) for e in applied["endpoints"]]
        self.nodes = [(host, int(port)) for kind, (host, _, port) in found if kind == "server"]
        self.sentinels = [f"{host}:{port}" for kind, (host, _, port) in found if kind == "sentinel"]

    def printed(self, library: str) -> dict[str, str]:
        """The files that ``redkeep client`` prints for it."""
        document = self.run("client", library, "--json").ok().json
        assert document["mode"] == self.mode
        return {file["name"]: file["text"] for file in document["files"]}

    def environment(self) -> dict[str, str]:
        nodes = self.sentinels if self.mode == "sentinel" else [f"{h}:{p}" for h, p in self.nodes]
        return {
            **os.environ,
            "REDIS_PASSWORD": self.password,
            "LOAD_MODE": self.mode,
            "LOAD_TAGS": ",".join(self.tags),
            "LOAD_WORKERS": "2",
            "LOAD_NODES": ",".join(nodes),
            "LOAD_NAME": self.name,
        }

    @property
    def tags(self) -> tuple[str, ...]:
        """One hash tag in each third of the slots, as a new Cluster of three shares them."""
        if self.mode == "sentinel":
            return ("0",)
        shares = ((0, 5460), (5461, 10922), (10923, 16383))
        return tuple(
            next(str(i) for i in range(1000) if first <= key_slot(str(i).encode()) <= last)
            for first, last in shares
        )

    def tags_of(self, tag: str) -> tuple[str, ...]:
        """The tags whose writes go where those of ``tag`` go."""
        return (tag,)

    def admin(self, port: int) -> Any:
        return Redis(
            port=port,
            username="redkeep",
            password=self._admin,
            decode_responses=True,
            socket_timeout=5,
            **self.tls,
        )

    def primary(self, tag: str) -> int:
        """The port of the server that takes writes of this tag."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [port for _, port in self.nodes if self._writes(port, tag)]
            return len(found) == 1

        until(look, "one primary")
        return found[0]

    def _writes(self, port: int, tag: str) -> bool:
        try:
            with self.admin(port) as server:
                if server.role()[0] != "master":
                    return False
                if self.mode == "sentinel":
                    return True
                slot, me = key_slot(tag.encode()), str(server.execute_command("CLUSTER", "MYID"))
                return any(
                    start <= slot <= end and me in [str(n[2]) for n in owners[:1]]
                    for start, end, *owners in server.execute_command("CLUSTER", "SLOTS")
                )
        except (RedisError, OSError):
            return False

    @contextmanager
    def fault(self, kind: Fault, tag: str) -> Iterator[None]:
        """The primary of ``tag`` is gone in the block, or another one is it; afterwards all is whole again."""
        port = self.primary(tag)
        if kind == "switchover":
            self.run("switchover", f"local:{port}", "--yes").ok()
            yield
            self.whole()
            return
        with self.admin(port) as server:
            process = int(server.info("server")["process_id"])
        os.kill(process, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        try:
            yield
        finally:
            if kind == "freeze":
                os.kill(process, signal.SIGCONT)
            self.whole()

    def whole(self) -> None:
        """Every server answers, every replica is linked, the Sentinels agree, and so does every node of the Cluster."""

        def look() -> bool:
            roles = []
            for _, port in self.nodes:
                with self.admin(port) as server:
                    seen = server.info("replication")
                    roles.append(seen["role"])
                    if seen["role"] == "slave" and seen["master_link_status"] != "up":
                        return False
                    if self.mode == "cluster" and "cluster_state:ok" not in _text(
                        server.execute_command("CLUSTER", "INFO")
                    ):
                        return False
            if roles.count("master") != (3 if self.mode == "cluster" else 1):
                return False
            return all(self._knows_all(sentinel) for sentinel in self.sentinels)

        until(look, "a whole deployment")

    def _knows_all(self, sentinel: str) -> bool:
        with self.admin(int(sentinel.rpartition(":")[2])) as server:
            seen = server.sentinel_master(self.name)
            return bool(seen["num-slaves"] == 2 and not seen["is_sdown"] and not seen["is_odown"])

    def end(self) -> None:
        self.run("destroy", "--yes", "--delete-data").ok()


def _text(found: Any) -> str:
    """CLUSTER INFO, which the library may have parsed."""
    return "\n".join(f"{k}:{v}" for k, v in found.items()) if isinstance(found, dict) else str(found)


@contextmanager
def staged(mode: Mode, folder: Path, more: str = "") -> Iterator[Stage]:
    stage = Stage(mode, folder, more)
    try:
        stage.make()
        yield stage
    finally:
        stage.end()


def until(condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE) -> None:
    """Raises ``AssertionError`` when it takes longer; an error of the condition counts as not yet."""
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (RedisError, OSError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"no {what if isinstance(what, str) else what()} within {seconds:.0f} s: {last}")
