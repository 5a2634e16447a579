"""What can be named as a source, and what is said about the rest."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from redkeep.errors import EvidenceError, RedkeepError, RefusedError, UsageError
from redkeep.rescue.disk.blocks import open_blocks
from redkeep.rescue.disk.lvm import volumes
from redkeep.rescue.disk.source import Evidence, inside_of, opened
from redkeep.rescue.disk.tree import Skipped, read_all, walk
from tests.cli import Redkeep
from tests.rescue import disks
from tests.rescue.disks import MIB


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("victim")
    for name in ("etc", "usr", "var", "data", "boot"):
        (top / name).mkdir()
    (top / "etc/fstab").write_text(
        "# made by a test\nUUID=0 / xfs defaults 0 0\n/dev/mapper/vg--0-data\t/data ext4 defaults 0 0\n"
        "LABEL=boot /boot ext4 defaults 0 0\n/dev/vda3 /etc/../var ext4\n"
    )
    (top / "etc/hostname").write_text("victim\n")
    with (top / "var/sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"data")
    (top / "var/big").write_bytes(os.urandom(3 * MIB))
    return top


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data")
    (top / "hello").write_text("hello")
    return top


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def look(evidence: Evidence, root: Path) -> None:
    tree = evidence.tree
    assert read_all(tree, b"/etc/hostname") == b"victim\n"
    assert read_all(tree, b"/var/big") == (root / "var/big").read_bytes()
    with tree.open(b"/var/sparse") as content:
        assert content.size == 1 << 40
        assert sum(length for _, length in content.segments()) <= MIB
        assert content.read((1 << 30) - 2, 8) == b"\0\0data\0\0"
        assert content.read(1 << 39, 10) == bytes(10)


@pytest.mark.parametrize("table", ["dos", "gpt"])
def test_a_partitioned_disk(tmp_path: Path, root: Path, data: Path, table: str) -> None:
    kind = "83" if table == "dos" else "linux"
    image = disks.partitioned(
        tmp_path / "disk.img",
        (kind, disks.ext4(data, tmp_path / "boot", 16 * MIB, "-L", "boot")),
        (kind, disks.ext4(root, tmp_path / "root")),
        table=table,
    )
    before = digest(image)
    with opened(image) as evidence:
        look(evidence, root)
        assert evidence.form == "raw"
        assert [(p.name, p.kind, p.mounted_at) for p in evidence.partitions] == [
            ("1", "ext4", "/boot"),
            ("2", "ext4", "/"),
        ]
        assert read_all(evidence.tree, b"/boot/hello") == b"hello"
    with opened(image, partition="1") as evidence:
        assert read_all(evidence.tree, b"/hello") == b"hello"
    with pytest.raises(UsageError, match="partition 7"), opened(image, partition="7"):
        pass
    assert digest(image) == before


def test_lvm_with_xfs_in_qcow2(tmp_path: Path, root: Path, data: Path) -> None:
    group = disks.lvm(
        tmp_path / "lvm",
        "vg-0",
        ("root", disks.xfs(root, tmp_path / "xfs")),
        ("data", disks.ext4(data, tmp_path / "ext4")),
    )
    image = disks.qcow2(disks.partitioned(tmp_path / "raw", ("8e", group)), tmp_path / "disk.qcow2")
    before = digest(image)
    with opened(image) as evidence:
        look_without_sparse(evidence, root)
        assert {p.name: p.mounted_at for p in evidence.partitions} == {
            "1": "",
            "vg-0/root": "/",
            "vg-0/data": "/data",
        }
        assert read_all(evidence.tree, b"/data/hello") == b"hello"
    assert digest(image) == before


def look_without_sparse(evidence: Evidence, root: Path) -> None:
    """A prototype copies holes as zeros, up to the end of the image: the 1 TiB file is not in it."""
    assert read_all(evidence.tree, b"/var/big") == (root / "var/big").read_bytes()


def test_a_group_with_a_missing_disk_is_named(tmp_path: Path) -> None:
    """What lies on the disk that is here is read."""
    with (
        pytest.raises(EvidenceError, match="1 of 2 disks") as caught,
        opened(disks.lvm(tmp_path / "lvm", "vg", missing=True)),
    ):
        pass
    assert "attach" in caught.value.next
    group = disks.lvm(
        tmp_path / "lvm",
        "vg",
        ("root", disks.ext4(root_like(tmp_path / "top"), tmp_path / "ext4")),
        missing=True,
    )
    with opened(group) as evidence:
        assert read_all(evidence.tree, b"/etc/hello") == b"hello"
        assert any("vg/lost: 1 of 2 disks" in note for note in evidence.notes)


def root_like(top: Path) -> Path:
    (top / "etc").mkdir(parents=True)
    (top / "etc/hello").write_text("hello")
    return top


@pytest.mark.parametrize("pieces", ["extended", "striped"])
def test_a_volume_in_pieces(tmp_path: Path, root: Path, pieces: str) -> None:
    """As a volume is that was extended once, or lies on several disks in turns."""
    image = disks.lvm(tmp_path / "lvm", "vg", ("root", disks.ext4(root, tmp_path / "root")), pieces=pieces)
    with opened(image) as evidence:
        look(evidence, root)
    with ExitStack() as stack:
        blocks, _ = open_blocks(image, stack)
        (volume,) = volumes([blocks])
        assert volume.blocks is not None
        assert volume.blocks.read(0, volume.blocks.size) == (tmp_path / "root").read_bytes()


def test_metadata_around_the_end_of_its_ring(tmp_path: Path, root: Path) -> None:
    """The text begins near the end and goes on at the begin, as it does after some changes."""
    image = disks.lvm(tmp_path / "lvm", "vg", ("root", disks.ext4(root, tmp_path / "root")))
    with image.open("r+b") as file:
        file.seek(4096)
        head = bytearray(file.read(512))
        offset, size = int.from_bytes(head[40:48], "little"), int.from_bytes(head[48:56], "little")
        end = int.from_bytes(head[32:40], "little")
        file.seek(4096 + offset)
        text = file.read(size)
        head[40:48] = (end - 512).to_bytes(8, "little")
        file.seek(4096)
        file.write(head)
        file.seek(4096 + end - 512)
        file.write(text[:512])
        file.seek(4096 + 512)
        file.write(text[512:])
    with opened(image) as evidence:
        look(evidence, root)


@pytest.mark.parametrize("damage", ["thin", "checksum", "bomb", "size"])
def test_volumes_that_are_not_read_are_named(tmp_path: Path, root: Path, damage: str) -> None:
    image = disks.lvm(tmp_path / "lvm", "vg", ("root", disks.ext4(root, tmp_path / "root", 16 * MIB)))
    content = bytearray(image.read_bytes())
    size = int.from_bytes(content[4096 + 48 : 4096 + 56], "little")
    text = bytes(content[4096 + 512 : 4096 + 512 + size])
    if damage == "thin":
        text = text.replace(b'"striped"', b'"thin"')
    elif damage == "checksum":
        text = text.replace(b"seqno = 3", b"seqno = 4")
    elif damage == "bomb":
        text = b"a {" * 100_000
    elif damage == "size":
        text = text.replace(b"extent_count = 4", b"extent_count = 4000000000000")
    content[4096 + 512 : 4096 + 512 + len(text)] = text
    content[4096 + 48 : 4096 + 56] = len(text).to_bytes(8, "little")
    if damage != "checksum":
        content[4096 + 56 : 4096 + 60] = disks.checksum(text)
    image.write_bytes(content)
    if damage == "size":  # as the table of partitions, it says more than there is
        with opened(image) as evidence:
            assert read_all(evidence.tree, b"/etc/hostname") == b"victim\n"
        return
    with pytest.raises(EvidenceError) as caught, opened(image):
        pass
    told = {"thin": "type thin", "checksum": "checksum", "bomb": "no text of LVM"}[damage]
    assert told in caught.value.what
    assert "vgchange" in caught.value.next


def test_volumes_are_mounted_where_fstab_says(tmp_path: Path, data: Path) -> None:
    """By what installers write there: a file system's UUID, or the group's and the volume's."""
    top = tmp_path / "top"
    for name in ("etc", "usr", "data", "more"):
        (top / name).mkdir(parents=True)
    one = disks.ext4(data, tmp_path / "one", 16 * MIB, "-U", "11111111-2222-3333-4444-555555555555")
    two = disks.ext4(data, tmp_path / "two", 16 * MIB)
    (top / "etc/fstab").write_text(
        f"/dev/disk/by-uuid/11111111-2222-3333-4444-555555555555 /data ext4 defaults 0 1\n"
        f"/dev/disk/by-id/dm-uuid-LVM-{'V' * 32}{'c' * 32} /more ext4 defaults 0 1\n"
    )
    root = disks.ext4(top, tmp_path / "root", 16 * MIB)
    with opened(disks.lvm(tmp_path / "lvm", "vg", ("root", root), ("one", one), ("two", two))) as evidence:
        assert read_all(evidence.tree, b"/data/hello") == read_all(evidence.tree, b"/more/hello") == b"hello"


def test_a_hundred_thousand_files_in_a_directory(tmp_path: Path) -> None:
    """A directory of this host; in the image a fifth of them, which is what mkfs makes in seconds."""
    top = tmp_path / "tree"
    (top / "many").mkdir(parents=True)
    for i in range(20_000):
        os.close(os.open(top / f"many/{i:06}", os.O_CREAT | os.O_WRONLY))
    with opened(disks.xfs(top, tmp_path / "disk")) as evidence:
        assert len(list(walk(evidence.tree, b"/many", skipped=lambda s: None))) == 20_000
    for i in range(20_000, 100_000):
        os.close(os.open(top / f"many/{i:06}", os.O_CREAT | os.O_WRONLY))
    with opened(top) as evidence:
        assert len(list(walk(evidence.tree, b"/many", skipped=lambda s: None))) == 100_000


def test_an_old_ext3_with_indirect_blocks(tmp_path: Path, root: Path) -> None:
    image = disks.ext4(root, tmp_path / "disk", 64 * MIB, "-O", "^extent,^64bit,^flex_bg", "-b", "1024")
    with opened(image) as evidence:
        assert read_all(evidence.tree, b"/var/big") == (root / "var/big").read_bytes()


def every_file(top: Path) -> dict[bytes, bytes]:
    return {
        b"/" + os.fsencode(p.relative_to(top)): os.fsencode(p.readlink())
        if p.is_symlink()
        else p.read_bytes()
        for p in top.rglob("*")
        if p.is_symlink() or p.is_file()
    }


def every_file_of(evidence: Evidence) -> dict[bytes, bytes]:
    tree = evidence.tree
    return {
        path: tree.target(path) if entry.kind == "symlink" else read_all(tree, path)
        for path, entry in walk(tree, b"/", skipped=lambda s: None)
        if entry.kind in ("symlink", "file") and not path.startswith(b"/lost+found")
    }


@pytest.mark.parametrize("inode", ["256", "1024"])
def test_what_lies_within_inodes(tmp_path: Path, inode: str) -> None:
    """Small files, links and directories (inline_data), names that are not UTF-8 among them."""
    top = tmp_path / "tree"
    (top / "etc/plain").mkdir(parents=True)
    (top / "etc/odd/below").mkdir(parents=True)
    for i in range(14):
        (top / f"etc/plain/{i}").write_bytes(b"%d" % i * i * 20)
    (top / "etc/long").symlink_to("/way" * 20)
    (top / "etc/short").symlink_to("plain")
    Path(os.fsdecode(os.fsencode(top) + b"/etc/odd/\xff")).write_text("odd")
    image = disks.ext4(top, tmp_path / "disk", 32 * MIB, "-O", "inline_data", "-I", inode, "-b", "4096")
    with opened(image) as evidence:
        assert every_file_of(evidence) == every_file(top)
        assert evidence.tree.stat(b"/etc/odd/below").kind == "directory"


def test_attributes_that_fill_their_room_hide_no_file(tmp_path: Path) -> None:
    """SELinux labels of every length, on files whose blocks are extents, and on those whose blocks are listed."""
    disks.need("debugfs")
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    for i in range(80):
        (top / f"etc/{i}").write_bytes(os.urandom(i * 1000))
    for options in ("extent", "^extent,^64bit"):
        image = disks.ext4(top, tmp_path / "disk", 32 * MIB, "-O", options, "-I", "256", "-b", "1024")
        lines = [f"ea_set /etc/{i} security.selinux {'a' * i}" for i in range(1, 80)]
        disks.run("debugfs", "-w", "-f", "-", image, text="\n".join(lines))
        with opened(image) as evidence:
            assert every_file_of(evidence) == every_file(top)
            assert {e.uid for _, e in evidence.tree.entries(b"/etc")} == {os.getuid()}


def test_a_damaged_inode_is_named_and_never_left_out(tmp_path: Path) -> None:
    disks.need("debugfs")
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    for name in ("one", "two", "three"):
        (top / "etc" / name).write_text(name)
    image = disks.ext4(top, tmp_path / "disk", 32 * MIB, "-I", "256")
    disks.run("debugfs", "-w", "-R", "sif /etc/two extra_isize 65000", image)
    with opened(image) as evidence:
        skipped: list[Skipped] = []
        kinds = {path: entry.kind for path, entry in walk(evidence.tree, b"/etc", skipped=skipped.append)}
    assert kinds == {b"/etc/one": "file", b"/etc/two": "unknown", b"/etc/three": "file"}
    assert [s.path for s in skipped] == [b"/etc/two"]
    run = Redkeep(tmp_path)("rescue", "extract", str(image), "bundle", "--only", "/etc", "--json")
    assert run.status == 1
    assert [p["path"] for p in run.json["problems"]] == ["/etc/two"]


def test_an_xfs_that_was_not_unmounted_is_named(tmp_path: Path, root: Path) -> None:
    """Its log ends with a record of one operation, the unmounting; without that mark the log would have to be replayed."""
    image = disks.xfs(root, tmp_path / "disk")
    with opened(image) as evidence:
        assert evidence.notes == ()
    content = bytearray(image.read_bytes())
    (group,) = struct.unpack_from(">Q", content, 48)
    blocks, bits = struct.unpack_from(">I", content, 84)[0], content[124]
    log = ((group >> bits) * blocks + (group & ((1 << bits) - 1))) * 4096
    record = content.index(b"\xfe\xed\xba\xbe", log)
    content[record + 512 + 9] &= ~0x20
    image.write_bytes(content)
    with opened(image) as evidence:
        (note,) = evidence.notes
        assert "not unmounted cleanly" in note


def test_flags_of_inodes_hide_nothing(tmp_path: Path) -> None:
    """What a file system encrypted is noise, and not handed on as a file; other flags say nothing of the content."""
    disks.need("debugfs")
    top = tmp_path / "tree"
    (top / "home/app").mkdir(parents=True)
    (top / "etc").mkdir()
    for name in ("home/app/file", "etc/huge", "etc/secret"):
        (top / name).write_text(name * 100)
    image = disks.ext4(top, tmp_path / "disk", 32 * MIB, "-O", "encrypt")
    for place, flags in (("/home", "0xa0000"), ("/etc/huge", "0xc0000"), ("/etc/secret", "0x80800")):
        disks.run("debugfs", "-w", "-R", f"sif {place} flags {flags}", image)
    run = Redkeep(tmp_path)(
        "rescue", "extract", str(image), "bundle", "--only", "/etc", "--only", "/home", "--json"
    )
    assert run.status == 1, run.everything
    (problem,) = run.json["problems"]
    assert problem == {"path": "/etc/secret", "why": "it is encrypted, by the file system (fscrypt)"}
    for name in ("home/app/file", "etc/huge"):
        assert (tmp_path / "bundle/files" / name).read_text() == name * 100


_IN_PIECES = """
import sys
with open(sys.argv[1], "wb") as file:
    for piece in range(900):
        file.seek(piece * 40_960)
        file.write(b"%d" % piece)
"""


def test_a_file_in_very_many_pieces(tmp_path: Path) -> None:
    """As a log is on XFS that grew beside others for months. Only a kernel makes one; the image is read without it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    image, at = (
        disks.xfs(root_like(tmp_path / "top"), tmp_path / "disk", 320 * MIB, "-b", "size=1024"),
        tmp_path / "at",
    )
    at.mkdir()
    shell = 'mount -o loop "$0" "$1" && "$2" -c "$3" "$1/etc/log"; done=$?; umount "$1"; exit $done'
    words = ["unshare", "-m", "sh", "-c", shell, str(image), str(at), sys.executable, _IN_PIECES]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("this kernel does not mount it")
    with opened(image) as evidence, evidence.tree.open(b"/etc/log") as content:
        assert evidence.tree.stat(b"/etc/log").kind == "file"
        assert content.size == 899 * 40_960 + 3
        assert len(list(content.segments())) == 900
        assert all(content.read(piece * 40_960, 3) == (b"%d" % piece).ljust(3, b"\0") for piece in range(899))


def test_features_that_are_not_known_are_named(tmp_path: Path, root: Path) -> None:
    image = disks.ext4(root, tmp_path / "disk", 64 * MIB, "-O", "large_dir")
    with pytest.raises(EvidenceError, match="large_dir") as caught, opened(image):
        pass
    assert "--mount" in caught.value.next


@pytest.mark.parametrize("what", ["btrfs", "LUKS", "ext4"])
def test_a_boot_partition_is_not_taken_for_the_system(
    tmp_path: Path, root: Path, data: Path, what: str
) -> None:
    """Where the partition with the system cannot be read, that is what is said."""
    other = disks.ext4(root, tmp_path / "root", 64 * MIB)
    with other.open("r+b") as file:
        if what == "ext4":
            file.seek(2048)
            file.write(os.urandom(4 * MIB))
        else:
            file.write(bytes(MIB))
            file.seek(MAGIC[what][0])
            file.write(MAGIC[what][1])
    image = disks.partitioned(
        tmp_path / "disk", ("83", disks.ext4(data, tmp_path / "boot", 16 * MIB)), ("83", other)
    )
    with pytest.raises((RefusedError, EvidenceError), match=what) as caught, opened(image):
        pass
    assert caught.value.next.endswith("--partition 1")
    with opened(image, partition="1") as evidence:
        assert read_all(evidence.tree, b"/hello") == b"hello"


MAGIC = {
    "NTFS": (3, b"NTFS    ", "ntfs-3g"),
    "btrfs": (65600, b"_BHRfS_M", "nologreplay"),
    "LUKS": (0, b"LUKS\xba\xbe", "cryptsetup"),
    "VMDK": (0, b"KDMV", "qemu-img convert"),
    "gzip": (0, b"\x1f\x8b", "gunzip"),
    "VDI": (0, b"<<< Oracle VM VirtualBox Disk Image >>>", "qemu-img convert"),
    "tar": (257, b"ustar", "--numeric-owner"),
}


@pytest.mark.parametrize("what", MAGIC)
def test_what_is_not_read_is_refused_with_what_to_do(tmp_path: Path, what: str) -> None:
    at, magic, hint = MAGIC[what]
    image = tmp_path / "image"
    image.write_bytes((bytes(at) + magic).ljust(MIB, b"\0"))
    with pytest.raises(RefusedError, match=what) as caught, opened(image):
        pass
    assert hint in caught.value.next
    assert str(image) in caught.value.where


def broken(tmp_path: Path, root: Path) -> dict[str, Path]:
    whole = disks.ext4(root, tmp_path / "whole")
    found = {name: tmp_path / name for name in ("empty", "noise", "short", "smashed", "zeros")}
    found["empty"].touch()
    found["noise"].write_bytes(os.urandom(MIB))
    found["zeros"].write_bytes(bytes(MIB))
    found["short"].write_bytes(whole.read_bytes()[: 2 * MIB])
    content = bytearray(whole.read_bytes())
    content[4096 : 8 * MIB] = os.urandom(8 * MIB - 4096)
    found["smashed"].write_bytes(content)
    return found


@pytest.mark.parametrize("name", ["empty", "noise", "short", "smashed", "zeros"])
def test_what_is_no_whole_disk_is_an_error_of_three_lines(tmp_path: Path, root: Path, name: str) -> None:
    image = broken(tmp_path, root)[name]
    with pytest.raises(RedkeepError) as caught, opened(image) as evidence:
        read_all(evidence.tree, b"/etc/hostname")
    assert len(str(caught.value).splitlines()) == 3


def test_a_truncated_partition_is_named(tmp_path: Path, root: Path) -> None:
    image = disks.partitioned(tmp_path / "disk", ("83", disks.ext4(root, tmp_path / "root")))
    os.truncate(image, image.stat().st_size - 32 * MIB)
    with pytest.raises(EvidenceError, match="the disk ends 32505856 bytes before") as caught, opened(image):
        pass
    assert "complete" in caught.value.next


def test_an_image_that_stands_on_another_is_refused(tmp_path: Path) -> None:
    disks.need("qemu-img")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(MIB))
    image = tmp_path / "disk.qcow2"
    disks.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", image)
    with pytest.raises(RefusedError, match="another one") as caught, opened(image):
        pass
    assert "secret" in caught.value.where


@pytest.mark.parametrize(
    "options", [["-c"], ["-o", "compat=0.10"], ["-c", "-o", "cluster_size=2M"], ["-o", "cluster_size=512"]]
)
def test_every_byte_of_a_qcow2_image(tmp_path: Path, root: Path, options: list[str]) -> None:
    """Compressed and plain, with clusters of every size: in pieces that begin and end anywhere."""
    disks.need("qemu-img")
    raw, image = disks.ext4(root, tmp_path / "raw"), tmp_path / "disk.qcow2"
    disks.run("qemu-img", "convert", "-O", "qcow2", *options, raw, image)
    content = raw.read_bytes()
    with ExitStack() as stack:
        blocks, _ = open_blocks(image, stack)
        assert blocks.size == len(content)
        for at in range(0, len(content), 999_983):
            wanted = content[at : at + 1_500_000]
            assert blocks.read(at, len(wanted)) == wanted
        with pytest.raises(OSError, match="outside"):
            blocks.read(len(content) - 1, 2)
    with opened(image) as evidence:
        look(evidence, root)


@pytest.mark.parametrize(
    ("options", "told"),
    [(["-c", "-o", "compression_type=zstd"], "zstd"), (["-o", "extended_l2=on"], "extended L2")],
)
def test_a_qcow2_image_of_another_kind_is_refused(
    tmp_path: Path, root: Path, options: list[str], told: str
) -> None:
    disks.need("qemu-img")
    image = tmp_path / "disk.qcow2"
    disks.run("qemu-img", "convert", "-O", "qcow2", *options, disks.ext4(root, tmp_path / "raw"), image)
    with pytest.raises(RefusedError, match=told) as caught, opened(image):
        pass
    assert "qemu-img convert" in caught.value.next


def test_a_qcow2_image_that_lies_or_is_cut(tmp_path: Path, root: Path) -> None:
    image = disks.qcow2(disks.ext4(root, tmp_path / "raw"), tmp_path / "disk.qcow2")
    content = image.read_bytes()
    for name, forged in {
        "cut": content[: len(content) // 20],
        "large": content[:24] + (1 << 62).to_bytes(8, "big") + content[32:],
        "clusters": content[:20] + (40).to_bytes(4, "big") + content[24:],
        "table": content[:40] + (1 << 60).to_bytes(8, "big") + content[48:],
        "empty": content[:24] + bytes(8) + content[32:],
    }.items():
        (tmp_path / name).write_bytes(forged)
        with pytest.raises(RedkeepError) as caught, opened(tmp_path / name) as evidence:
            read_all(evidence.tree, b"/var/big")
        assert len(str(caught.value).splitlines()) == 3, name


def test_what_is_inside_of_a_directory(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    (evidence / "sub").mkdir(parents=True)
    (tmp_path / "way").symlink_to(evidence / "sub")
    assert inside_of(evidence / "sub/new/bundle", evidence)
    assert inside_of(tmp_path / "way/bundle", evidence)
    assert inside_of(evidence, evidence)
    assert not inside_of(tmp_path / "evidence2", evidence)


def test_a_mount_when_asked_for(tmp_path: Path, root: Path) -> None:
    """By the kernel, read-only, and gone with the process: in one of its own, as the command does it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    image = disks.partitioned(tmp_path / "disk.img", ("83", disks.ext4(root, tmp_path / "root")))
    before = digest(image)
    document = Redkeep(tmp_path)("rescue", "inspect", str(image), "--mount", "--json").ok().json
    assert document["form"] == "raw, mounted"
    assert document["system"]["hostname"] == "victim"
    assert digest(image) == before
    assert str(image) not in disks.run("losetup", "--list", "--noheadings", "--output", "BACK-FILE")
