"""python -m tests.lab prepare: build what hosts are made of. python -m tests.lab a11 a12=trixie: a lab to play in."""

from __future__ import annotations

import os
import sys

from . import Lab
from .bases import prepare
from .recipe import DISTRIBUTIONS


def main(words: list[str]) -> None:
    if words == ["prepare"]:
        prepare(DISTRIBUTIONS)
        return
    first = next(iter(DISTRIBUTIONS))
    with Lab({word.partition("=")[0]: word.partition("=")[2] or first for word in words}) as lab:
        for host in lab.hosts.values():
            print(f"{host.name}  {host.distribution:9} private {host.private:12} public {host.public}")
        print(f"This shell is on the lab's internet: ssh -F {lab.ssh.config} {words[0].partition('=')[0]}")
        lab.run([os.environ.get("SHELL", "bash")], timeout=None, capture_output=False)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
