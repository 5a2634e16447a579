"""How fast a dead server's disk is read: 1 GB of small files into a verified bundle, beside a plain cp from a loop mount.

Needs root for the loop mount. The goal is 60 % of cp's rate for reading, hashing and writing, which cp does without the
hashing; the verification afterwards, which cp does not do at all, is shown by itself. And a look over 100,000 files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GOAL = 0.60
COMMAND = (sys.executable, "-m", "redkeep")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="MB of small files")
    parser.add_argument("--files", type=int, default=100_000, help="files to look over")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--where", default="/dev/shm", help="in memory, so that the disk's other users do not count"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("not root: no loop mount to compare with", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="redkeep-bench-", dir=options.where) as directory:
        result = compare(Path(directory), options.size, options.rounds) | look(Path(directory), options.files)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:32} {value}")
    print(
        f"goal {GOAL:.0%} of cp: {'reached' if result['share_of_cp'] >= GOAL else 'MISSED'}", file=sys.stderr
    )
    return 0 if result["share_of_cp"] >= GOAL else 1


def compare(where: Path, size: int, rounds: int) -> dict[str, float]:
    """Medians of rounds that take turns. Pages of the image are in memory for both."""
    image, mount = where / "disk.img", where / "mount"
    mount.mkdir()
    files = fill(image, mount, size)
    copies, extracts, wholes = [], [], []
    for _ in range(rounds):
        with mounted(image, mount):
            copies.append(timed("cp", "-r", mount / "data", where / "copy"))
        shutil.rmtree(where / "copy")
        began = time.monotonic()
        extracts.append(extract(image, where / "bundle"))
        wholes.append(time.monotonic() - began)
        shutil.rmtree(where / "bundle")
    image.unlink()
    cp, ours, whole = (sorted(values)[rounds // 2] for values in (copies, extracts, wholes))
    return {
        "files": files,
        "cp_seconds": round(cp, 2),
        "cp_mb_per_second": round(size / cp, 1),
        "extract_seconds": round(ours, 2),
        "extract_mb_per_second": round(size / ours, 1),
        "share_of_cp": round(cp / ours, 2),
        "whole_command_seconds": round(whole, 2),
    }


def fill(image: Path, mount: Path, size: int) -> int:
    """Files of 4 to 40 KB, in directories of 500."""
    with image.open("wb") as file:
        file.truncate(size * 1_400_000 + (64 << 20))
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", image], check=True)
    noise, chance = os.urandom(1 << 20), random.Random(7)
    left, count = size * 1_000_000, 0
    with mounted(image, mount, "rw"):
        while left > 0:
            length = min(left, chance.randint(4_000, 40_000))
            directory = mount / f"data/{count // 500}"
            directory.mkdir(parents=True, exist_ok=True)
            begin = chance.randrange(len(noise) - length)
            (directory / f"picture-{count}.jpg").write_bytes(noise[begin : begin + length])
            left, count = left - length, count + 1
    return count


def extract(image: Path, bundle: Path) -> float:
    """Seconds until everything is written: without the start of Python, and without reading it all back."""
    command = [*COMMAND, "rescue", "extract", str(image), str(bundle), "--only", "/data", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["complete"]
    return float(document["seconds"] - document["verify_seconds"])


def look(where: Path, files: int) -> dict[str, float]:
    top = where / "many"
    for i in range(files):
        if i % 500 == 0:
            (top / f"srv/{i // 500}").mkdir(parents=True)
        (top / f"srv/{i // 500}/{i}").touch()
    began = time.monotonic()
    subprocess.run([*COMMAND, "rescue", "inspect", top, "--json"], check=True, capture_output=True)
    return {"inspect_files": files, "inspect_seconds": round(time.monotonic() - began, 2)}


@contextmanager
def mounted(image: Path, where: Path, how: str = "ro,noload") -> Iterator[None]:
    subprocess.run(["mount", "-o", f"loop,{how}", image, where], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def timed(*command: str | Path) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
