"""SshHost against a real sshd on loopback."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from redkeep.errors import CommandFailed, HostUnreachable
from redkeep.hosts.base import RemoteFile
from redkeep.hosts.facts import Look, look
from redkeep.hosts.hostkeys import HostKeys
from redkeep.hosts.ssh import SshHost
from redkeep.model.engine import EngineWant
from redkeep.run import engines
from tests.live.sshd import Sshd, fingerprint, free_port, keygen

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/usr/sbin/sshd").exists(), reason="needs root and openssh-server"
    ),
]


class Operator:
    """Somebody with a key, an ssh configuration and an answer to questions about host keys."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key = keygen(folder / "id_ed25519")
        self.config = folder / "config"
        self.config.write_text(
            f"Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        )
        self.asked: list[tuple[str, str]] = []
        self.answer = True
        self.keys = HostKeys(folder / ".redkeep" / "known_hosts", self.accept, user=folder / "known_hosts")

    async def accept(self, host: str, shown: str) -> bool:
        self.asked.append((host, shown))
        return self.answer

    @asynccontextmanager
    async def host(self, login: str, fingerprint: str | None = None) -> AsyncIterator[SshHost]:
        host = SshHost("sz-1", login, self.keys, config=[self.config], fingerprint=fingerprint)
        try:
            yield host
        finally:
            await host.close()


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "operator")


@pytest.fixture
def sshd(operator: Operator) -> Iterator[Sshd]:
    folder = Path(tempfile.mkdtemp(prefix="redkeep-sshd-"))
    folder.chmod(0o755)  # sshd reads authorized keys as the user who logs in
    server = Sshd(folder)
    shutil.copy(operator.key.with_suffix(".pub"), server.authorized)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def login(sshd: Sshd) -> str:
    return f"root@127.0.0.1:{sshd.port}"


@pytest.fixture
def somebody() -> Iterator[str]:
    """A user who is not root, and has no right to sudo."""
    name = "redkeep-test-ops"
    subprocess.run(["useradd", "-m", "-s", "/bin/sh", name], check=True)
    subprocess.run(["usermod", "-p", "*", name], check=True)  # no password, yet not locked for sshd
    yield name
    subprocess.run(["userdel", "-f", "-r", name], check=True, capture_output=True)


@pytest.fixture
def agent(operator: Operator) -> Iterator[Path]:
    """The socket of an ssh-agent that holds the operator's key."""
    folder = Path(tempfile.mkdtemp(prefix="redkeep-agent-"))
    server = subprocess.Popen(["ssh-agent", "-D", "-a", str(folder / "s")], stdout=subprocess.DEVNULL)
    environment = os.environ | {"SSH_AUTH_SOCK": str(folder / "s")}
    for _ in range(50):
        if (
            subprocess.run(
                ["ssh-add", "-q", str(operator.key)], env=environment, capture_output=True
            ).returncode
            == 0
        ):
            break
        time.sleep(0.1)
    yield folder / "s"
    server.terminate()
    server.wait(10)
    shutil.rmtree(folder)


async def test_a_command_and_its_three_streams(operator: Operator, login: str) -> None:
    async with operator.host(login) as host:
        result = await host.run("cat; echo out; echo err >&2; exit 3", stdin=b"in\n", check=False)
        assert (result.status, result.stdout, result.stderr) == (3, "in\nout\n", "err\n")
        assert (await host.run("id -u")).stdout == "0\n"
        assert not host.is_local


async def test_a_failed_command_is_three_lines(operator: Operator, login: str) -> None:
    async with operator.host(login) as host:
        with pytest.raises(CommandFailed) as failure:
            await host.run("echo 'No space left on device' >&2; exit 5")
    assert failure.value.status == 5
    assert len(str(failure.value).splitlines()) == 3
    assert failure.value.where == "host sz-1"
    assert "free space" in failure.value.next


async def test_many_commands_at_once_on_one_session(operator: Operator, login: str) -> None:
    async with operator.host(login) as host:
        results = await asyncio.gather(*(host.run(f"echo {n}") for n in range(40)))
    assert [r.stdout for r in results] == [f"{n}\n" for n in range(40)]


async def test_a_hanging_command_is_ended_on_the_host_too(operator: Operator, login: str) -> None:
    async with operator.host(login) as host:
        started = time.monotonic()
        with pytest.raises(CommandFailed, match=r"took longer than 0\.5 s"):
            await host.run("sleep 4711 & sleep 4712", timeout=0.5)
        assert time.monotonic() - started < 60
        assert (await host.run("ps -eo args | grep '^sleep 471[12]$'", check=False)).stdout == ""


async def test_a_lost_session_is_told_and_made_anew(operator: Operator, login: str) -> None:
    async with operator.host(login) as host:
        with pytest.raises(HostUnreachable, match="lost"):
            await host.run("kill -9 $(ps -o ppid= -p $PPID)")
        assert (await host.run("echo again")).stdout == "again\n"


async def test_odd_files_arrive_exactly(operator: Operator, login: str, tmp_path: Path) -> None:
    target = tmp_path / "on the host" / "it's $HOME `x` ü"
    odd = {
        "plain": b"text\n",
        "empty": b"",
        "binary": bytes(range(256)) * 1000,
        "-dash *": b"\x00\xff",
        "a" * 180: b"long name",
        'quote"d': "pass wörd # 'x'".encode(),
    }
    files = [RemoteFile(f"{target}/{name}", content, 0o600, "nobody") for name, content in odd.items()]
    async with operator.host(login) as host:
        await host.write([*files, RemoteFile(f"{tmp_path}/public", b"x", 0o644)])
        await host.write(files)
        for file in files:
            assert await host.read(file.path) == file.content
        assert await host.read(f"{target}/missing") is None
        with pytest.raises(CommandFailed, match="Is a directory"):
            await host.read(str(target))
    assert sorted(p.name for p in target.iterdir()) == sorted(odd)
    status = (target / "plain").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o600, pwd.getpwnam("nobody").pw_uid)
    assert target.stat().st_mode & 0o7777 == 0o750
    assert (tmp_path / "public").stat().st_mode & 0o7777 == 0o644


async def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    operator: Operator, login: str, tmp_path: Path
) -> None:
    async with operator.host(login) as host:
        await host.write([RemoteFile(f"{tmp_path}/w/a", b"old")])
        with pytest.raises(CommandFailed, match="nosuchuser"):
            await host.write([RemoteFile(f"{tmp_path}/w/a", b"new", owner="nosuchuser")])
    assert (tmp_path / "w" / "a").read_bytes() == b"old"
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["a"]


async def test_an_upload_of_some_megabytes(operator: Operator, login: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(12_000_000))
    async with operator.host(login) as host:
        await host.upload(str(source), f"{tmp_path}/up/bin", mode=0o755)
    assert (tmp_path / "up" / "bin").read_bytes() == source.read_bytes()
    assert (tmp_path / "up" / "bin").stat().st_mode & 0o7777 == 0o755
    assert [p.name for p in (tmp_path / "up").iterdir()] == ["bin"]


async def test_a_connection_from_the_host(operator: Operator, login: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, operator.host(login) as host:
        reader, writer = await host.connect("127.0.0.1", port, timeout=5)
        writer.write(b"hello\n")
        await writer.drain()
        assert await reader.read(100) == b"hello\n"
        assert await reader.read(100) == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await host.connect("127.0.0.1", free_port(), timeout=5)


async def test_first_use_asks_once_and_remembers(operator: Operator, sshd: Sshd, login: str) -> None:
    for _ in range(2):
        async with operator.host(login) as host:
            await host.run("true")
    assert operator.asked == [(f"sz-1 ([127.0.0.1]:{sshd.port})", fingerprint(sshd.host_key))]
    assert operator.keys.own.stat().st_mode & 0o777 == 0o600
    assert operator.keys.own.read_text().startswith(f"[127.0.0.1]:{sshd.port} ssh-ed25519 ")


async def test_first_use_refused(operator: Operator, login: str) -> None:
    operator.answer = False
    async with operator.host(login) as host:
        with pytest.raises(HostUnreachable, match="not known") as failure:
            await host.run("true")
    assert len(str(failure.value).splitlines()) == 3
    assert not operator.keys.own.exists()


async def test_a_key_known_to_ssh_is_not_asked_about(operator: Operator, sshd: Sshd, login: str) -> None:
    key = sshd.host_key.with_suffix(".pub").read_text()
    operator.keys.user.write_text(f"broken line\n[127.0.0.1]:{sshd.port} {key}")
    async with operator.host(login) as host:
        await host.run("true")
    assert operator.asked == []


async def test_a_changed_key_is_never_accepted(operator: Operator, sshd: Sshd, login: str) -> None:
    async with operator.host(login) as host:
        await host.run("true")
    before = fingerprint(sshd.host_key)
    for kind in ("ed25519", "ecdsa"):
        sshd.new_host_key(kind)
        async with operator.host(login) as host:
            with pytest.raises(HostUnreachable, match="has changed") as failure:
                await host.run("true")
        lines = str(failure.value).splitlines()
        assert len(lines) == 3
        assert f"expected {before}, offered {fingerprint(sshd.host_key)}" in lines[1]
        assert "ssh-keygen -R" in lines[2]
    assert len(operator.asked) == 1


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_a_fingerprint_from_the_file_needs_no_question(
    operator: Operator, sshd: Sshd, login: str, kind: str, tmp_path: Path
) -> None:
    key = sshd.host_key
    if kind != "ed25519":  # a second key of the server, which it would not offer first
        key = keygen(tmp_path / "second_key", kind)
        sshd.stop()
        sshd.settings = (f"HostKey {key}",)
        sshd.start()
    async with operator.host(login, fingerprint=fingerprint(key)) as host:
        await host.run("true")
    assert operator.asked == []


async def test_another_key_than_in_the_file(operator: Operator, sshd: Sshd, login: str) -> None:
    expected = "SHA256:" + "A" * 43
    async with operator.host(login, fingerprint=expected) as host:
        with pytest.raises(HostUnreachable, match="has changed") as failure:
            await host.run("true")
    assert f"expected {expected}, offered {fingerprint(sshd.host_key)}" in failure.value.where


async def test_a_key_that_the_host_does_not_know(operator: Operator, sshd: Sshd, login: str) -> None:
    sshd.authorized.write_text("")
    async with operator.host(login) as host:
        with pytest.raises(HostUnreachable, match="does not accept this login") as failure:
            await host.run("true")
    assert "ssh-copy-id" in failure.value.next


async def test_a_key_from_the_agent(operator: Operator, login: str, agent: Path) -> None:
    operator.config.write_text(f"Host *\n  IdentityAgent {agent}\n")
    async with operator.host(login) as host:
        assert (await host.run("echo in")).stdout == "in\n"
    operator.config.write_text(f"Host *\n  IdentityAgent {agent}.gone\n")
    async with operator.host(login) as host:
        with pytest.raises(HostUnreachable, match="does not accept this login"):
            await host.run("true")


async def test_nobody_listens(operator: Operator) -> None:
    async with operator.host(f"root@127.0.0.1:{free_port()}") as host:
        with pytest.raises(HostUnreachable, match="refuses SSH connections"):
            await host.run("true")


async def test_an_unknown_name(operator: Operator) -> None:
    async with operator.host("root@no-such-host.invalid") as host:
        with pytest.raises(HostUnreachable, match="could not be resolved"):
            await host.run("true")


async def test_a_port_that_says_nothing(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redkeep.hosts.ssh.CONNECT_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with operator.host(f"root@127.0.0.1:{silent.getsockname()[1]}") as host:
            with pytest.raises(HostUnreachable, match="did not answer"):
                await host.run("true")


async def test_a_login_that_is_none(operator: Operator) -> None:
    with pytest.raises(HostUnreachable, match="not an SSH login"):
        SshHost("sz-1", "root@[::1", operator.keys)


async def test_a_user_without_sudo(operator: Operator, sshd: Sshd, somebody: str) -> None:
    async with operator.host(f"{somebody}@127.0.0.1:{sshd.port}") as host:
        assert (await host.run("id -un", root=False)).stdout == f"{somebody}\n"
        with pytest.raises(HostUnreachable, match="sudo") as failure:
            await host.run("id -u")
        assert "NOPASSWD" in failure.value.next


@pytest.mark.skipif(not shutil.which("sudo"), reason="needs sudo")
async def test_a_user_with_sudo(operator: Operator, sshd: Sshd, somebody: str, tmp_path: Path) -> None:
    rule = Path("/etc/sudoers.d") / somebody
    rule.write_text(f"{somebody} ALL=(ALL) NOPASSWD: ALL\n")
    rule.chmod(0o440)
    try:
        async with operator.host(f"{somebody}@127.0.0.1:{sshd.port}") as host:
            assert (await host.run("id -u; cat", stdin=b"secret")).stdout == "0\nsecret"
            with pytest.raises(CommandFailed, match="status 3"):
                await host.run("exit 3")
            with pytest.raises(CommandFailed, match="took longer"):
                await host.run("sleep 4713", timeout=0.5)
            assert (await host.run("ps -eo args | grep '^sleep 4713$'", check=False)).stdout == ""
            await host.write([RemoteFile("/root/redkeep-test/file", b"x", 0o600)])
            assert await host.read("/root/redkeep-test/file") == b"x"
    finally:
        rule.unlink()
        shutil.rmtree("/root/redkeep-test", ignore_errors=True)


async def test_the_bundled_server_is_copied_over_ssh(
    operator: Operator, login: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redkeep.run.engines.bundled.prefix", lambda host, facts: f"{tmp_path}/engines")
    want = EngineWant("valkey", "bundled")
    async with operator.host(login) as host:
        facts = await look(host, Look("/var/lib/redkeep"))
        installed = await engines.install(host, facts, want, print)
        assert installed.server.startswith(f"{tmp_path}/engines/valkey-")
        assert installed == await engines.find(host, facts, want)
        assert "Valkey server" in (await host.run(f"{installed.server} --version", root=False)).stdout


async def test_through_a_bastion(operator: Operator, sshd: Sshd, login: str, tmp_path: Path) -> None:
    bastion = Sshd(tmp_path / "bastion")
    bastion.folder.mkdir()
    shutil.copy(operator.key.with_suffix(".pub"), bastion.authorized)
    bastion.start()
    try:
        common = operator.config.read_text()
        operator.config.write_text(
            f"Host inside*\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User root\n"
            f"  ProxyJump root@127.0.0.1:{bastion.port}\n{common}"
        )
        bastions: dict[str, SshHost] = {}
        hosts = [
            SshHost(name, name, operator.keys, config=[operator.config], bastions=bastions)
            for name in ("inside-1", "inside-2")
        ]
        seen = await asyncio.gather(*(host.run("echo $SSH_CLIENT") for host in hosts))
        assert all(r.stdout.startswith("127.0.0.1 ") for r in seen)
        assert len(bastions) == 1
        log = (bastion.folder / "sshd.log").read_text()
        assert log.count("Accepted publickey for root") == 1
        assert len(operator.asked) == 2  # the bastion's key and the hosts' common one
        await hosts[0].close()
        assert (await hosts[1].run("echo still")).stdout == "still\n"
        await hosts[1].close()
        bastion.stop()
        async with operator.host("inside-3") as host:
            with pytest.raises(HostUnreachable, match="bastion"):
                await host.run("true")
    finally:
        bastion.stop()
