"""A private sshd on loopback: its own configuration, host key, port and authorized keys."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path


def keygen(path: Path, kind: str = "ed25519") -> Path:
    """Makes a key pair without passphrase and returns the private half's path."""
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return path


def fingerprint(path: Path) -> str:
    """``SHA256:...`` of a key, as ssh-keygen tells it."""
    done = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """One server; ``folder`` holds all it needs and nothing else is touched."""

    folder: Path
    settings: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    address: str = "127.0.0.1"
    #: the path of another network namespace, for it to be in
    network: Path | None = None
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> Sshd:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.host_key.exists():
            keygen(self.host_key)
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own demand
        config = self.folder / "sshd_config"
        lines = [
            f"Port {self.port}",
            f"ListenAddress {self.address}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.authorized}",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            f"PidFile {self.folder}/sshd.pid",
            *self.settings,
        ]
        config.write_text("\n".join(lines) + "\n")
        log = (self.folder / "sshd.log").open("ab")
        with log:
            command = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
            inside = ["nsenter", f"--net={self.network}"] if self.network else []
            self._process = subprocess.Popen(
                [*inside, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((self.address, self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise RuntimeError((self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def new_host_key(self, kind: str = "ed25519") -> None:
        """What a reinstalled machine, or somebody in between, looks like."""
        self.stop()
        keygen(self.host_key, kind)
        self.start()

    @property
    def host_key(self) -> Path:
        return self.folder / "host_key"

    @property
    def authorized(self) -> Path:
        return self.folder / "authorized_keys"
