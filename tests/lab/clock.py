"""Wrong clocks. The kernel has one time of day for all hosts, so it is falsified in each program's C library."""

from __future__ import annotations

import hashlib
import shlex
import struct
from pathlib import Path

from .bases import base_of, layer_of, run_over
from .cache import built_once
from .recipe import DISTRIBUTIONS

_SOURCE = Path(__file__).with_name("clock.c")
_LIBRARY, _OFFSET, _PRELOAD = "usr/lib/lab-clock.so", "usr/lib/lab-clock.offset", "etc/ld.so.preload"


def set_clock(root: Path, seconds: float) -> None:
    """Let the programs of a host, given by its root directory, see another time than the world's.

    The first call counts for programs that start from then on; later ones at once for those too.
    """
    library, offset, preload = (root / name for name in (_LIBRARY, _OFFSET, _PRELOAD))
    if not preload.exists():
        offset.write_bytes(bytes(8))
        library.write_bytes(_built().read_bytes())
        library.chmod(0o755)
        preload.write_text(f"/{_LIBRARY}\n")
    with offset.open(
        "r+b", buffering=0
    ) as mapped:  # never shorter, not even for a moment: programs have it mapped
        mapped.write(struct.pack("q", round(seconds * 1e9)))


def _built() -> Path:
    """The library, built with the oldest distribution's compiler and C library, so that it loads in all."""
    oldest = next(iter(DISTRIBUTIONS))
    layer, base = layer_of(oldest, "builder"), base_of(oldest)
    digest = hashlib.sha256(_SOURCE.read_bytes() + layer.name.encode()).hexdigest()

    def build(into: Path) -> None:
        compiler = [
            "gcc",
            "-shared",
            "-fPIC",
            "-O2",
            f'-DOFFSET_FILE="/{_OFFSET}"',
            "-x",
            "c",
            "-",
            "-o",
            "/tmp/it",
        ]
        script = f"""
chroot /mnt/root {shlex.join(compiler)} < {shlex.quote(str(_SOURCE))}
cp /mnt/up/tmp/it {shlex.quote(str(into / "clock.so"))}
"""
        run_over([layer, base], script)

    return built_once(f"clock-{digest[:12]}", build) / "clock.so"
