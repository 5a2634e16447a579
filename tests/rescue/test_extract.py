"""``rescue extract``: complete, verified, the same when run again, whatever ended it before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep
from tests.rescue import disks, victim
from tests.rescue.disks import MIB


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return victim.infected(victim.clean(tmp_path_factory.mktemp("victim") / "root"))


@pytest.fixture(scope="module")
def image(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disks.ext4(root, tmp_path_factory.mktemp("image") / "disk.img")


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path)


def manifest(bundle: Path) -> dict[str, Any]:
    lines = (bundle / "manifest.jsonl").read_text().splitlines()
    return {item["path"]: item for item in map(json.loads, lines)}


def test_everything_that_inspect_finds(run: Redkeep, image: Path, root: Path, tmp_path: Path) -> None:
    document = run("rescue", "extract", str(image), "bundle", "--json").ok().json
    assert document["complete"]
    assert document["verified_files"] == document["files"] == document["copied_files"]
    items = manifest(tmp_path / "bundle")
    for path, family in {
        "/etc/redis.conf": "redis",
        "/var/lib/redis/appendonly.aof": "redis",
        "/home/app/shop.jar": "applications",
        "/data/upload/2024/1.jpg": "uploads",
        "/etc/nginx/snippets/extra.conf": "sites",
        "/etc/nginx/ssl/shop.key": "sites",
        "/var/lib/mysql/ibdata1": "databases",
        "/etc/shadow": "system",
        "/etc/ld.so.preload": "intrusion",
        "/srv/php/.env": "applications",
    }.items():
        assert family in items[path]["belongs"], path
        copy = tmp_path / "bundle/files" / path.lstrip("/")
        assert copy.read_bytes() == (root / path.lstrip("/")).read_bytes()
        assert copy.stat().st_mode & 0o7777 == 0o600
    assert items["/usr/bin/bash"]["mode"] == "4755"
    assert items["/root/.bash_history"]["target"] == "/dev/null"
    assert not (tmp_path / "bundle/files/root/.bash_history").exists()

    before = (tmp_path / "bundle/manifest.jsonl").read_bytes()
    again = run("rescue", "extract", str(image), "bundle", "--json").ok().json
    assert again["copied_files"] == 0
    assert again["verified_files"] == document["files"]
    assert (tmp_path / "bundle/manifest.jsonl").read_bytes() == before
    assert "there already" in run("rescue", "extract", str(image), "bundle").ok().stdout


def test_only_what_is_named(run: Redkeep, image: Path, tmp_path: Path) -> None:
    run("rescue", "extract", str(image), "one", "--only", "redis").ok()
    assert "/etc/redis.conf" in manifest(tmp_path / "one")
    assert "/home/app/shop.jar" not in manifest(tmp_path / "one")
    run("rescue", "extract", str(image), "two", "--only", "/etc/nginx", "--only", "/home/app/shop.jar").ok()
    assert {p.split("/")[1] for p in manifest(tmp_path / "two")} == {"etc", "home"}
    run("rescue", "extract", str(image), "three", "--only", "reddis").error(2, "no family reddis")
    run("rescue", "extract", str(image), "three", "--only", "/nothing").error(2, "nothing there")


def test_one_family_after_the_other(run: Redkeep, image: Path, tmp_path: Path) -> None:
    """What an earlier run took stays a part of the bundle."""
    run("rescue", "extract", str(image), "bundle", "--only", "redis").ok()
    first = manifest(tmp_path / "bundle")
    document = run("rescue", "extract", str(image), "bundle", "--only", "sites", "--json").ok().json
    both = manifest(tmp_path / "bundle")
    assert first.items() <= both.items()
    assert document["verified_files"] == document["files"] > document["copied_files"] > 0
    told = run("rescue", "inspect", "bundle", "--json").json
    assert told["sites"]
    assert told["redis"]["configurations"]
    (tmp_path / "bundle/files/etc/redis.conf").write_text("changed\n")
    again = run("rescue", "extract", str(image), "bundle", "--only", "sites", "--json")
    assert again.status == 1
    assert [p["path"] for p in again.json["problems"]] == ["/etc/redis.conf"]
    assert run("rescue", "extract", str(image), "bundle", "--only", "sites", "--json").status == 1
    run("rescue", "extract", str(image), "bundle", "--only", "redis").ok()


def test_a_damaged_copy_is_noticed_and_made_again(run: Redkeep, image: Path, tmp_path: Path) -> None:
    run("rescue", "extract", str(image), "bundle", "--only", "/etc").ok()
    copy = tmp_path / "bundle/files/etc/hostname"
    copy.write_text("shop-2\n")
    told = run("rescue", "extract", str(image), "bundle", "--only", "/etc", "--json")
    assert told.status == 1, told.everything
    assert [p["path"] for p in told.json["problems"]] == ["/etc/hostname"]
    run("rescue", "extract", str(image), "bundle", "--only", "/etc").ok()
    assert copy.read_text() == "shop-1\n"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 small files, and one that is large."""
    top = tmp_path_factory.mktemp("many") / "root"
    for i in range(20_000):
        file = top / f"data/{i % 50}/{i}"
        if i < 50:
            file.parent.mkdir(parents=True)
        file.write_bytes(b"%d" % i * 50)
    (top / "data/large").write_bytes(os.urandom(20 * MIB))
    return disks.ext4(top, top.parent / "disk.img", 160 * MIB, "-N", "30000")


def test_killed_in_the_middle_and_run_again(run: Redkeep, many: Path, tmp_path: Path) -> None:
    """kill -9 at three different moments, each time further on."""
    for files in (500, 5_000, 12_000):
        _killed_after(run, many, tmp_path / "bundle", files)
    done = run("rescue", "extract", str(many), "bundle", "--only", "/data", "--json").ok().json
    assert done["complete"]
    assert done["files"] == 20_001
    assert done["copied_files"] < 20_001
    run("rescue", "extract", str(many), "whole", "--only", "/data").ok()
    assert (tmp_path / "bundle/manifest.jsonl").read_bytes() == (
        tmp_path / "whole/manifest.jsonl"
    ).read_bytes()
    disks.run("diff", "-r", tmp_path / "bundle/files", tmp_path / "whole/files")
    assert not (tmp_path / "bundle/progress.jsonl").exists()


def _killed_after(run: Redkeep, image: Path, bundle: Path, files: int) -> None:
    process = subprocess.Popen(
        list(run.argv("rescue", "extract", str(image), str(bundle), "--only", "/data")),
        cwd=run.folder,
        env=run.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        until = time.monotonic() + 120
        while process.poll() is None and _count(bundle / "files") < files:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was quicker than the test"
    _until_nobody_writes(bundle / "files")


def _count(directory: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(directory))


def _until_nobody_writes(directory: Path) -> None:
    """The reader's own process ends with the command."""
    before = -1
    while before != (before := _count(directory)):
        time.sleep(0.3)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a small disk")
    where = tmp_path / "small"
    where.mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", where)
    try:
        yield where
    finally:
        disks.run("umount", where)


def test_a_target_that_is_too_small_is_refused_before(run: Redkeep, many: Path, small_disk: Path) -> None:
    told = run("rescue", "extract", str(many), str(small_disk / "bundle"), "--only", "/data")
    told.error(4, "MiB are free", "larger disk")


def test_a_bundle_is_never_in_the_evidence(run: Redkeep, root: Path, tmp_path: Path) -> None:
    run("rescue", "extract", str(root), str(root / "bundle")).error(4, "inside the evidence")
    (tmp_path / "way").symlink_to(root / "tmp")
    run("rescue", "extract", str(root), "way/bundle").error(4, "inside the evidence")
    assert not (root / "bundle").exists()


def test_what_is_no_bundle_is_left_alone(run: Redkeep, image: Path, many: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear")
    run("rescue", "extract", str(image), "mine").error(4, "not empty")
    (tmp_path / "file").touch()
    run("rescue", "extract", str(image), "file").error(2, "not a directory")
    run("rescue", "extract", str(image), "bundle", "--only", "/etc").ok()
    run("rescue", "extract", str(many), "bundle", "--only", "/data").error(4, "another disk")


def test_sparse_stays_sparse(run: Redkeep, tmp_path: Path) -> None:
    top = tmp_path / "root"
    (top / "data").mkdir(parents=True)
    with (top / "data/sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"in the middle")
    image = disks.ext4(top, tmp_path / "disk")
    for source, bundle in ((top, "one"), (image, "two")):
        run("rescue", "extract", str(source), bundle, "--only", "/data").ok()
        copy = tmp_path / bundle / "files/data/sparse"
        assert copy.stat().st_size == 1 << 40
        assert copy.stat().st_blocks * 512 < MIB
    hashes = {manifest(tmp_path / b)["/data/sparse"]["hash"] for b in ("one", "two")}
    assert len(hashes) == 1
