"""Disks as a dead server's: made from a directory of this machine, without mounting and without root."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

MIB = 1 << 20
FIRST = 2048  # sectors: where a first partition usually begins


def need(*programs: str) -> None:
    """Skips the test where Debian's packages of tests/packages.txt are not installed."""
    missing = [p for p in programs if program(p) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def program(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")


def run(*command: str | Path, text: str | None = None) -> str:
    name, *rest = map(str, command)
    done = subprocess.run([program(name) or name, *rest], input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def unpack(archive: Path, where: Path) -> None:
    """``extractall(filter=)`` came with Python 3.11.4, and Debian 12 has 3.11.2; later ones warn without a filter."""
    with tarfile.open(archive) as opened:
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(where)


def ext4(tree: Path, image: Path, size: int = 64 * MIB, *options: str) -> Path:
    need("mke2fs")
    with image.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", tree, image)
    return image


def xfs(tree: Path, image: Path, size: int = 320 * MIB, *options: str) -> Path:
    """With a prototype file, whose words cannot have blanks: such names are left out."""
    need("mkfs.xfs")
    with image.open("wb") as file:
        file.truncate(size)
    prototype = image.with_suffix(".proto")
    prototype.write_bytes(b"/none\n0 0\n" + b"\n".join(_prototype(tree, b"d--755 0 0")) + b"\n$\n")
    run("mkfs.xfs", "-q", "-f", *options, "-p", prototype, image)
    return image


def _prototype(directory: Path, head: bytes) -> list[bytes]:
    lines = [head]
    for path in sorted(directory.iterdir()):
        name = bytes(path.name.encode("utf-8", "surrogateescape"))
        if len(name.split()) != 1:
            continue
        info = path.lstat()
        rights = b"%03o 0 0" % (info.st_mode & 0o777)
        marks = (b"u" if info.st_mode & 0o4000 else b"-") + (b"g" if info.st_mode & 0o2000 else b"-")
        if path.is_symlink():
            lines.append(name + b" l--777 0 0 " + bytes(str(path.readlink()).encode()))
        elif path.is_dir():
            lines += [name + b" ", *_prototype(path, b"d" + marks + rights), b"$"]
        elif path.is_fifo():
            lines.append(name + b" p--" + rights)
        elif path.is_file():
            lines.append(name + b" -" + marks + rights + b" " + str(path).encode("utf-8", "surrogateescape"))
    return lines


def partitioned(image: Path, *parts: tuple[str, Path], table: str = "dos") -> Path:
    """Partitions from 1 MiB on, each (type, file with its content); ``table``: ``dos`` or ``gpt``."""
    need("sfdisk")
    at = FIRST
    script = [f"label: {table}", "unit: sectors"]
    for kind, content in parts:
        sectors = content.stat().st_size // 512
        script.append(f"start={at}, size={sectors}, type={kind}")
        at += sectors
    with image.open("wb") as file:
        file.truncate(at * 512 + MIB)
    run("sfdisk", "-q", image, text="\n".join(script) + "\n")
    at = FIRST
    for _, content in parts:
        copy_into(content, image, at * 512)
        at += content.stat().st_size // 512
    return image


def copy_into(content: Path, image: Path, offset: int) -> None:
    """Sparse stays sparse."""
    run(
        "dd",
        f"if={content}",
        f"of={image}",
        f"seek={offset}",
        "bs=1M",
        "conv=notrunc,sparse",
        "oflag=seek_bytes",
    )


def qcow2(raw: Path, image: Path) -> Path:
    need("qemu-img")
    run("qemu-img", "convert", "-O", "qcow2", raw, image)
    return image


_EXTENT = 4 * MIB
_BEGIN = MIB
_STRIPE = 64 << 10


def lvm(
    image: Path, group: str, *contents: tuple[str, Path], missing: bool = False, pieces: str = ""
) -> Path:
    """A physical volume with volumes, as ``pvcreate`` and ``lvcreate`` write it (text metadata).

    ``missing``: with another one, ``lost``, on a disk that is not here. ``pieces`` is how the volumes lie there: linear,
    ``extended`` (the second half before the first) or ``striped`` (in turns of 64 KiB).
    """
    extents = [-(-content.stat().st_size // _EXTENT) for _, content in contents]
    size = _BEGIN + sum(extents) * _EXTENT
    with image.open("wb") as file:
        file.truncate(size)
    volumes = [(name, n) for (name, _), n in zip(contents, extents, strict=True)]
    _write_labels(image, size, _metadata(group, volumes, size, missing, pieces).encode())
    at = _BEGIN
    for (_, content), count in zip(contents, extents, strict=True):
        if pieces:
            with image.open("r+b") as file:
                file.seek(at)
                file.write(_in_pieces(content.read_bytes().ljust(count * _EXTENT, b"\0"), pieces))
        else:
            copy_into(content, image, at)
        at += count * _EXTENT
    return image


def _in_pieces(data: bytes, pieces: str) -> bytes:
    if pieces == "extended":
        half = len(data) // _EXTENT // 2 * _EXTENT
        return data[half:] + data[:half]
    parts = [data[i : i + _STRIPE] for i in range(0, len(data), _STRIPE)]
    return b"".join(parts[::2] + parts[1::2])


def _uuid(letter: str) -> str:
    return "-".join(letter * n for n in (6, 4, 4, 4, 4, 4, 6))


def _segments(at: int, n: int, pieces: str) -> list[str]:
    def one(begin: int, count: int, *places: int) -> str:
        stripes = ", ".join(f'"pv0", {place}' for place in places)
        size = f"stripe_size = {_STRIPE // 512}\n" if len(places) > 1 else ""
        return (
            f'start_extent = {begin}\nextent_count = {count}\n\ntype = "striped"\nstripe_count = {len(places)}\n{size}\n'
            f"stripes = [\n{stripes}\n]"
        )

    half = n // 2
    if pieces == "extended":
        return [one(0, half, at + n - half), one(half, n - half, at)]
    return [one(0, n, at, at + half) if pieces == "striped" else one(0, n, at)]


def _logical(name: str, identifier: str, segments: list[str]) -> str:
    inside = "".join(f"\n\nsegment{i} {{\n{text}\n}}" for i, text in enumerate(segments, start=1))
    return (
        f'{name} {{\nid = "{identifier}"\nstatus = ["READ", "WRITE", "VISIBLE"]\nflags = []\n'
        f'creation_time = 1700000000\t# Some time\ncreation_host = "victim"\nsegment_count = {len(segments)}{inside}\n}}\n'
    )


def _metadata(group: str, volumes: list[tuple[str, int]], size: int, missing: bool, pieces: str) -> str:
    total = sum(n for _, n in volumes)
    logical, at = "", 0
    for i, (name, n) in enumerate(volumes):
        logical += _logical(name, _uuid(chr(ord("a") + i)), _segments(at, n, pieces))
        at += n
    if missing:
        logical += _logical("lost", _uuid("z"), [text.replace("pv0", "pv1") for text in _segments(0, 1, "")])
    second = ""
    if missing:
        second = (
            f'pv1 {{\nid = "{_uuid("Q")}"\ndevice = "/dev/vdb"\nstatus = ["ALLOCATABLE"]\nflags = []\n'
            f"dev_size = {size // 512}\npe_start = 2048\npe_count = {total}\n}}\n"
        )
    return (
        f'{group} {{\nid = "{_uuid("V")}"\nseqno = 3\nformat = "lvm2"\nstatus = ["RESIZEABLE", "READ", "WRITE"]\n'
        f"flags = []\nextent_size = {_EXTENT // 512}\nmax_lv = 0\nmax_pv = 0\nmetadata_copies = 0\n\n"
        f'physical_volumes {{\npv0 {{\nid = "{_uuid("P")}"\ndevice = "/dev/vda2"\nstatus = ["ALLOCATABLE"]\nflags = []\n'
        f"dev_size = {size // 512}\npe_start = {_BEGIN // 512}\npe_count = {total}\n}}\n{second}}}\n\n"
        f"logical_volumes {{\n{logical}}}\n}}\n"
        '# Generated for a test\n\ncontents = "Text Format Volume Group"\nversion = 1\n\ndescription = ""\n\n'
        'creation_host = "victim"\ncreation_time = 1700000000\n\n\0'
    )


def checksum(data: bytes) -> bytes:
    """CRC-32 with LVM's beginning and without the final inversion."""
    return ((zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF) & 0xFFFFFFFF).to_bytes(4, "little")


def _write_labels(image: Path, size: int, metadata: bytes) -> None:
    def number(value: int, width: int = 8) -> bytes:
        return value.to_bytes(width, "little")

    header = _uuid("P").replace("-", "").encode() + number(size)
    header += number(_BEGIN) + number(0) + bytes(16)  # where data is; end of that list
    header += number(4096) + number(_BEGIN - 4096) + bytes(16)  # where metadata is; end
    header += number(2, 4) + number(1, 4) + bytes(16)  # extension: version, flags, no boot areas
    checked = (number(32, 4) + b"LVM2 001" + header).ljust(512 - 20, b"\0")
    label = b"LABELONE" + number(1) + checksum(checked) + checked
    area = b" LVM2 x[5A%r0N*>" + number(1, 4) + number(4096) + number(_BEGIN - 4096)
    area += number(512) + number(len(metadata)) + checksum(metadata) + number(0, 4)
    area = area.ljust(508, b"\0")
    with image.open("r+b") as file:
        file.seek(512)
        file.write(label)
        file.seek(4096)
        file.write(checksum(area) + area)
        file.seek(4096 + 512)
        file.write(metadata)
