"""From the disk of a server that was broken into to a running service: every step as its owner takes it."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.rescue import databases, disks, victim

from .conftest import LabFactory
from .lab import Lab
from .site import Site

PICTURE = b"\xff\xd8\xff the picture of a customer"
WEB = ("a11", "a12")


def ext4(root: Path, folder: Path) -> Path:
    """The image of a disk with one partition."""
    return disks.partitioned(folder / "disk.img", ("83", disks.ext4(root, folder / "part", 256 * disks.MIB)))


def xfs(root: Path, folder: Path) -> Path:
    """A boot partition, and XFS in a logical volume, as a cloud's image file."""
    system = disks.xfs(root, folder / "xfs")
    group = disks.lvm(folder / "lvm", "centos", ("root", system))
    (folder / "boot-files").mkdir()
    boot = disks.ext4(folder / "boot-files", folder / "boot", 16 * disks.MIB)
    raw = disks.partitioned(folder / "raw", ("83", boot), ("8e", group))
    return disks.qcow2(raw, folder / "disk.qcow2")


def broken_into(root: Path, state: str) -> None:
    """The application's data in an append-only file, which a worm flushed; MySQL as it was left; and a picture."""
    victim.infected(victim.clean(root))
    victim.put(root, "/data/upload/2024/photo.jpg", PICTURE)
    shutil.rmtree(root / "var/lib/mysql")
    databases.old(state, root / "var/lib/mysql")
    data = root / "var/lib/redis"
    shutil.rmtree(data)
    data.mkdir()
    socket = data / "s"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(data)]
    server = subprocess.Popen([*command, "--appendonly", "yes", "--save", ""], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with Redis(unix_socket_path=str(socket)) as client:
            fill(client)
            client.flushall()
            client.set("backup1", f"\n\n{victim.CRON}\n\n")
    finally:
        server.terminate()
        server.wait(60)
    socket.unlink(missing_ok=True)


def fill(client: Any) -> None:
    for number in range(300):
        client.set(f"user:{number}", f"name {number}")
    client.hset("cart:7", mapping={"apple": 3, "pear": 1})
    client.set("session:1", "soon over", ex=500_000)


def hash_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("make", "state"),
    [
        pytest.param(ext4, "clean", id="ext4"),
        pytest.param(xfs, "crashed", id="lvm-xfs-qcow2"),
    ],
)
def test_from_the_image_to_the_service(fresh_lab: LabFactory, tmp_path: Path, make: Any, state: str) -> None:
    disks.need("redis-server", "mariadbd", "mariadb")
    broken_into(tmp_path / "root", state)
    image = make(tmp_path / "root", tmp_path)
    before = hash_of(image)
    lab = fresh_lab(WEB)
    site = Site.at(lab, tmp_path / "desk")
    run = site.run

    found = run("rescue", "inspect", image, "--json").json
    assert found["intrusion"], "a server full of them"
    run("rescue", "extract", image, "bundle").ok()
    run("rescue", "plan", "bundle", "--ssh-from", "198.51.100.7", *hosts(lab)).ok()
    assert "bind and protected-mode are not carried over" in (run.folder / "rebuild/REBUILD.md").read_text()

    # Redis: planned, made, filled
    planned = run.folder / "rebuild/redkeep.yaml"
    shutil.copy(planned, run.folder / "redkeep.yaml")
    assert site.apply()["verified"]["ok"]
    words = ("--before-flush", "--without-intruders", "--into", "redkeep.yaml")
    imported = run("rescue", "redis", "bundle", *words, "--json").ok().json
    assert imported, imported
    lab.call(lambda: the_data_are_there(site), "a12")
    assert_healthy(site)

    # MySQL: dumped, and loaded into a server of Debian's on the new host
    dumped = run("rescue", "mysql", "bundle", "--out", "dump")
    assert dumped.status == (0 if state == "clean" else 1), dumped.everything
    load_there(lab, run.folder / "dump")

    # nginx: with the planned configuration, and the rescued picture
    serve(lab, run.folder)
    for port in (80, 443):  # as the planned security group
        lab.network.open_port(port)
    url = f"http://{lab['a12'].public}/upload/2024/photo.jpg"
    asked = ["curl", "-s", "-o", str(tmp_path / "got"), "-w", "%{http_code}", "-H", "Host: shop.example", url]
    deadline = time.monotonic() + 60
    while (status := lab.run(asked).stdout) != "200":  # a reload has only been asked for
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    assert (tmp_path / "got").read_bytes() == PICTURE
    assert hash_of(image) == before


def hosts(lab: Lab) -> list[str]:
    host = lab["a11"]
    return [
        "--host", f"a11=root@{host.public},private={host.private},public={host.public},zone=aliyun/z1",
    ]  # fmt: skip


def the_data_are_there(site: Site) -> None:
    """As the application reads it, by what it was given."""
    with site.client() as client:
        assert client.get("user:299") == "name 299"
        assert client.hgetall("cart:7") == {"apple": "3", "pear": "1"}
        assert 0 < client.ttl("session:1") <= 500_000
        assert client.dbsize() == 302
        assert client.get("backup1") is None


def assert_healthy(site: Site) -> None:
    findings = site.run("check", "--json").json["findings"]
    assert not [f for f in findings if f["severity"] == "error"], findings


def load_there(lab: Lab, dump: Path) -> None:
    """With a real server, that another program made; then what the dump says how to ask."""
    install(lab, "a12", "mariadb-server")
    there = lab.root_of("a12") / "root/dump"
    shutil.copytree(dump, there)
    lab.exec("a12", "cd /root/dump && for f in data/*.sql; do mariadb <$f || exit; done", timeout=240)
    lab.exec(
        "a12", "cd /root/dump && mariadb --batch --skip-column-names <verify.sql | diff verify.expected -"
    )


def serve(lab: Lab, desk: Path) -> None:
    """Word for word what REBUILD.md says of the sites' files, and of nginx until it wants certificates."""
    install(lab, "a12", "nginx")
    for folder in ("bundle", "rebuild"):
        shutil.copytree(desk / folder, lab.root_of("a12") / "root" / folder, symlinks=True)
    text = (desk / "rebuild/REBUILD.md").read_text()
    words = commands(text, "The sites' files") + commands(text, "nginx").partition("certbot ")[0]
    assert "cp -R" in words
    assert "nginx -t" in words
    words = words.replace(
        f"{desk}/bundle", "/root/bundle"
    )  # which REBUILD.md says to change, where it is taken along
    lab.exec("a12", f"set -e; cd /root/rebuild; {words}")


def commands(text: str, title: str) -> str:
    """The indented lines of a section."""
    section = re.split(r"^## ", text, flags=re.M)
    (found,) = [s for s in section if s.partition("\n")[0].endswith(title)]
    lines = [line.strip() for line in found.splitlines() if line.startswith("    ")]
    return "\n".join(lines) + "\n"


def install(lab: Lab, host: str, package: str) -> None:
    lab.exec(
        host,
        f"export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -qqy {shlex.quote(package)}",
        timeout=600,
    )
