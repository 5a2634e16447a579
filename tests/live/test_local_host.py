"""LocalHost against this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redkeep.errors import CommandFailed
from redkeep.hosts.base import RemoteFile
from redkeep.hosts.local import LocalHost

pytestmark = pytest.mark.live


@pytest.fixture
def host() -> LocalHost:
    return LocalHost()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def running(text: str) -> bool:
    listed = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout
    return any(text in line and not line.startswith("Z") for line in listed.splitlines())


async def test_a_command_and_its_three_streams(host: LocalHost) -> None:
    result = await host.run("cat; echo out; echo err >&2; exit 3", stdin=b"in\n", check=False)
    assert (result.status, result.stdout, result.stderr) == (3, "in\nout\n", "err\n")
    assert not result.ok
    assert host.is_local


async def test_a_failed_command_is_three_lines(host: LocalHost) -> None:
    with pytest.raises(CommandFailed) as failure:
        await host.run("echo 'Permission denied' >&2; exit 5")
    assert failure.value.status == 5
    assert failure.value.output == "Permission denied"
    assert len(str(failure.value).splitlines()) == 3


async def test_broken_bytes_are_replaced(host: LocalHost) -> None:
    assert (await host.run(r"printf 'a\377b'")).stdout == "a�b"


async def test_the_time_limit_ends_the_children_too(host: LocalHost) -> None:
    started = time.monotonic()
    with pytest.raises(CommandFailed, match="took longer than"):
        await host.run("sleep 5711 & sleep 5712", timeout=0.3)
    assert time.monotonic() - started < 30
    assert not running("sleep 571")


async def test_a_command_that_will_not_end_is_killed(host: LocalHost) -> None:
    with pytest.raises(CommandFailed, match="took longer than"):
        await host.run("trap '' TERM; while :; do sleep 5713; done", timeout=0.3)
    assert not running("sleep 5713")


async def test_cancelling_ends_the_command(host: LocalHost) -> None:
    task = asyncio.create_task(host.run("sleep 5714"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running("sleep 5714")


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_while_the_process_is_being_made(host: LocalHost, turns: int) -> None:
    """At each turn of the event loop, with output that nobody will read."""
    task = asyncio.create_task(host.run("yes | head -c 300000; sleep 5716"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    assert done, "still waiting for a process that was never there"
    assert task.cancelled()
    assert not running("sleep 5716")


async def test_files_of_all_kinds(host: LocalHost, tmp_path: Path) -> None:
    odd = {
        "plain": b"text\n",
        "empty": b"",
        "binary": bytes(range(256)) * 999,
        "- 'q' \"d\" $x": b"\0",
        "ü*": b"1",
    }
    files = [RemoteFile(f"{tmp_path}/new/er folder/{name}", content, 0o600) for name, content in odd.items()]
    await host.write(files)
    for file in files:
        assert await host.read(file.path) == file.content
    folder = tmp_path / "new" / "er folder"
    assert names(folder) == sorted(odd)
    assert {mode(folder / name) for name in odd} == {0o600}
    assert mode(folder) == mode(folder.parent) == 0o750


async def test_writing_again_replaces_and_keeps_the_mode_asked_for(host: LocalHost, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old, open to all")
    target.chmod(0o666)
    await host.write([RemoteFile(str(target), b"new", 0o640)])
    assert target.read_bytes() == b"new"
    assert mode(target) == 0o640


async def test_a_link_is_replaced_not_followed(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    await host.write([RemoteFile(f"{tmp_path}/link", b"new")])
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "link").is_symlink()


async def test_a_folder_in_the_way_is_an_error_and_leaves_nothing(host: LocalHost, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(CommandFailed):
        await host.write([RemoteFile(f"{tmp_path}/taken", b"x")])
    assert names(tmp_path) == ["taken"]
    assert names(tmp_path / "taken") == []


async def test_a_path_that_is_not_absolute_is_a_mistake(host: LocalHost) -> None:
    for path in ("relative", "/etc/", "/etc/.."):
        with pytest.raises(ValueError, match="absolute path"):
            await host.write([RemoteFile(path, b"")])


async def test_reading_what_is_not_there(host: LocalHost, tmp_path: Path) -> None:
    assert await host.read(f"{tmp_path}/nothing") is None
    with pytest.raises(CommandFailed, match="reading"):
        await host.read(str(tmp_path))


async def test_uploading(host: LocalHost, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    await host.upload(str(source), f"{tmp_path}/a b/copy", mode=0o750)
    copy = tmp_path / "a b" / "copy"
    assert copy.read_bytes() == source.read_bytes()
    assert mode(copy) == 0o750
    assert names(copy.parent) == ["copy"]


async def test_connecting(host: LocalHost) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await host.connect("127.0.0.1", port, timeout=5)
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await host.connect("127.0.0.1", port, timeout=5)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_deployment_on_ones_own_machine_is_ones_own(tmp_path: Path) -> None:
    """A user who may sudo without a password: files of root's would be none that his servers can read."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sudo").write_text(
        '#!/bin/sh\n[ "$1" = -n ] && shift\n[ "$1" = true ] && exit 0\necho sudo "$@"\n'
    )
    for path in (tools / "sudo", tools, *tmp_path.parents[:3], tmp_path):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    script = (
        "import asyncio, os, pathlib, shutil; from redkeep.hosts.hostkeys import refuse\n"
        "from redkeep.model.spec import load\n"
        "from redkeep.run.sessions import connect; import redkeep.hosts.local, redkeep.hosts.sessions, redkeep.hosts.shell\n"
        "spec = load('mode: standalone\\nhosts: [local]\\n')\n"
        "async def main():\n"
        "    host = (await connect(spec, pathlib.Path('/nowhere'), refuse)).hosts['local']\n"
        "    print((await host.run('id -u')).stdout)\n"
        "    print(await (await host.session('id -u')).line(timeout=10))\n"
        "os.setuid(54321); asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": "/"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["54321", "54321"], done.stdout + done.stderr
