"""Whatever a victim's disk says, nothing of this host is read: the same tests for every kind of source."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redkeep.rescue.disk.directory import DirectoryTree
from redkeep.rescue.disk.source import opened
from redkeep.rescue.disk.tree import Skipped, Tree, read_all, walk
from tests.rescue import disks

CANARY = b"this is the rescuer's own"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root full of ways out of it. The canary lies where they lead."""
    base = tmp_path_factory.mktemp("hostile")
    canary = base / "outside" / "canary"
    canary.parent.mkdir()
    canary.write_bytes(CANARY)
    root = base / "root"
    for name in ("etc", "deep", "usr", "real"):
        (root / name).mkdir(parents=True)
    (root / "real/file").write_bytes(b"the victim's")
    ways = {
        "absolute": str(canary),
        "relative": os.path.relpath(canary, root),
        "above": "../" * 30 + str(canary).lstrip("/"),
        "magic": f"/proc/{os.getpid()}/root{canary}",
        "self": f"/proc/self/root{canary}",
        "descriptor": "/proc/self/fd/0",
        "directory": str(canary.parent),
        "top": "/",
        "circle": "circle2",
        "circle2": "circle",
        "empty-target": ".",
        "inside": "/real/file",
        "inside-above": "../../../../real/file",
    }
    for name, target in ways.items():
        (root / name).symlink_to(target)
    (root / "passwd-dir").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"broken\xff\xfe")).write_bytes(b"broken name")
    (root / "etc" / os.fsdecode(b"also\xc3broken")).write_bytes(b"in a directory")
    (root / "new\nline").write_bytes(b"two lines")
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: reading it never ends
    bottom = root / "deep"
    for _ in range(300):
        bottom = bottom / "d"
        bottom.mkdir()
    return root


@pytest.fixture(scope="module", params=["openat2", "by-hand", "ext4", "xfs", "qcow2"])
def tree(
    request: pytest.FixtureRequest, hostile: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tree]:
    where = tmp_path_factory.mktemp("disk")
    if request.param in ("openat2", "by-hand"):
        yield DirectoryTree(hostile, by_hand=request.param == "by-hand")
        return
    image = where / "disk.img"
    if request.param == "xfs":
        disks.xfs(hostile, image)
    else:
        disks.ext4(hostile, image)
    if request.param == "qcow2":
        image = disks.qcow2(image, where / "disk.qcow2")
    with opened(image) as evidence:
        yield evidence.tree


@pytest.mark.parametrize(
    "path",
    [
        b"/absolute",
        b"/relative",
        b"/above",
        b"/magic",
        b"/self",
        b"/descriptor",
        b"/directory/canary",
        b"/top/absolute",
        b"/../outside/canary",
        b"/real/../../outside/canary",
        b"/circle",
        b"/real/file/..",
        b"/nothing",
        b"/real/file\0",
    ],
)
def test_no_way_leads_out(tree: Tree, path: bytes) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        read_all(tree, path)
    assert CANARY not in str(caught.value).encode()


def test_links_inside_are_followed(tree: Tree) -> None:
    for path in (b"/inside", b"/inside-above", b"/top/top/real/file", b"/empty-target/real/file"):
        assert read_all(tree, path) == b"the victim's"
        assert tree.real(path) == b"/real/file"
    assert tree.stat(b"/inside", follow=False).kind == "symlink"
    assert tree.target(b"/inside") == b"/real/file"


def test_special_files_are_not_opened(tree: Tree) -> None:
    with pytest.raises(OSError, match="fifo"):
        tree.open(b"/fifo")
    if os.geteuid() == 0 and "xfs" not in tree.where and not _is_xfs(tree):
        with pytest.raises(OSError, match="device"):
            tree.open(b"/device")
    with pytest.raises(OSError, match="directory"):
        tree.open(b"/real")


def _is_xfs(tree: Tree) -> bool:
    return b"new\nline" not in {name for name, _ in tree.entries(b"/")}


def test_names_may_be_any_bytes(tree: Tree) -> None:
    names = {name for name, _ in tree.entries(b"/")}
    assert b"broken\xff\xfe" in names
    assert read_all(tree, b"/broken\xff\xfe") == b"broken name"
    assert read_all(tree, b"/etc/also\xc3broken") == b"in a directory"
    if not _is_xfs(tree):  # its prototype files have no such names
        assert read_all(tree, b"/new\nline") == b"two lines"


def test_a_deep_tree_is_walked_to_a_depth_and_says_so(tree: Tree) -> None:
    skipped: list[Skipped] = []
    deepest = max(path.count(b"/d") for path, _ in walk(tree, b"/", skipped=skipped.append))
    assert 100 < deepest < 200
    assert any("deep" in s.why for s in skipped)


def test_the_walk_does_not_follow_links(tree: Tree) -> None:
    paths = [path for path, _ in walk(tree, b"/", skipped=lambda s: None)]
    assert not any(path.startswith(b"/passwd-dir/") or b"canary" in path for path in paths)
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_directory_that_changes_under_way_leads_nowhere_else(tmp_path: Path, by_hand: bool) -> None:
    """A name changes between a file of the victim and a link to the host, as fast as it can."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(CANARY)
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a/file").write_bytes(b"inside")
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            (root / "a").rename(root / "b")
            (root / "link").rename(root / "a")
            (root / "a").rename(root / "link")
            (root / "b").rename(root / "a")

    thread = threading.Thread(target=change)
    thread.start()
    tree, seen = DirectoryTree(root, by_hand=by_hand), set()
    try:
        for _ in range(5_000):
            try:
                seen.add(read_all(tree, b"/a/file"))
            except OSError:
                continue
    finally:
        stop.set()
        thread.join()
        tree.close()
    assert seen == {b"inside"}


def test_times_of_access_stay(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    os.utime(file, (1_000_000_000, 2_000_000_000))  # older than the change: the kernel would set it
    before = file.stat().st_atime_ns
    assert read_all(DirectoryTree(tmp_path), b"/file") == b"x"
    assert file.stat().st_atime_ns == before
