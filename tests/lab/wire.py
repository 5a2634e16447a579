"""A delay line, run as a program in a network namespace: python wire.py NEAR FAR ONE_WAY_MS LOSS_PERCENT.

It makes two TAP devices and carries every frame of one to the other after the delay, as netem would where the
kernel has it. It says "up" when the devices are there.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_BURST = 64


def main() -> None:
    near, far = _tap(sys.argv[1]), _tap(sys.argv[2])
    delay, loss = float(sys.argv[3]) / 1e3, float(sys.argv[4]) / 100
    other = {near: far, far: near}
    under_way: deque[tuple[float, int, bytes]] = deque()
    poll = select.epoll()
    for tap in other:
        poll.register(tap, select.EPOLLIN)
    print("up", flush=True)
    while True:
        pause = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for tap, _ in poll.poll(pause):
            arrival = time.monotonic() + delay
            under_way.extend((arrival, other[tap], f) for f in _frames(tap) if random.random() >= loss)
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, tap, frame = under_way.popleft()
            _send(tap, frame)


def _tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


def _frames(tap: int) -> list[bytes]:
    frames: list[bytes] = []
    try:
        while len(frames) < _BURST:
            frames.append(os.read(tap, 65536))
    except OSError:  # nothing more for now, or the device is not up yet
        pass
    return frames


def _send(tap: int, frame: bytes) -> None:
    try:
        os.write(tap, frame)
    except OSError:  # full or down: a wire may lose a frame
        pass


if __name__ == "__main__":
    main()
