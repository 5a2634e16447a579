"""Data directories of servers that are gone, and a fresh MariaDB to load dumps into."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rescue.disks import need, program, unpack

DATA = Path(__file__).parent / "data"
#: What CHECKSUM TABLE said on the MySQL 5.5 server itself, after the clean shutdown.
CHECKSUMS = {"t": 3476027216, "g": 4191250684, "m": 3474331228, "c": 4199164099}


def old(state: str, where: Path) -> Path:
    """A data directory of MySQL 5.5: ``clean`` or ``crashed``."""
    unpack(DATA / f"mysql-5.5-{state}.txz", where.parent)
    made = where.parent / ("fpt.clean" if state == "clean" else "fpt.dirty")
    made.rename(where)
    return where


class MariaDB:
    """A server of this machine's own MariaDB, reached by its socket alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        if not self.data.exists():
            self.data.mkdir(parents=True)
            (self.data / "mysql").mkdir()
        server = program("mariadbd")
        assert server is not None
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(server, "--no-defaults", f"--datadir={self.data}", f"--socket={self.folder}/s"),
                    *("--skip-networking", "--skip-grant-tables", f"--pid-file={self.folder}/pid"),
                    *(["--user=root"] if os.geteuid() == 0 else []),
                    *("--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=32M", *options),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + 120
        while self._ask("SELECT 1").returncode != 0:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.1)

    def sql(self, text: str | bytes) -> str:
        done = self._ask(text)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    def _ask(self, text: str | bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={self.folder}/s", "--batch", "--skip-column-names"],
            input=text if isinstance(text, bytes) else text.encode(),
            capture_output=True,
            check=False,
        )

    def stop(self) -> None:
        """As a shutdown does it."""
        self._end("terminate")

    def kill(self) -> None:
        self._end("kill")

    def _end(self, how: str) -> None:
        if self._process is not None:
            getattr(self._process, how)()
            self._process.wait(120)
            self._process = None


@contextmanager
def mariadb(folder: Path, *options: str) -> Iterator[MariaDB]:
    need("mariadbd", "mariadb")
    server = MariaDB(folder)
    try:
        server.start(*options)
        yield server
    finally:
        server.kill()


def same_in(server: MariaDB, dump: Path) -> None:
    """Loads what is proven and asks what the command's own words say to ask."""
    for file in sorted((dump / "data").iterdir()):
        server.sql(file.read_bytes())
    assert server.sql((dump / "verify.sql").read_bytes()) == (dump / "verify.expected").read_text()


def servers(of: int) -> set[int]:
    """The processes of servers that this process has started, itself or by others. Other tests have servers as well."""
    parents: dict[int, int] = {}
    named = set()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            parents[int(path.name)] = int(rest.split()[1])
            if name in ("mariadbd", "mysqld"):
                named.add(int(path.name))
    return {one for one in named if of in _ancestors(one, parents)}


def _ancestors(process: int, parents: dict[int, int]) -> list[int]:
    found = []
    while process in parents:
        found.append(process := parents[process])
    return found


def are_gone(processes: set[int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes)
