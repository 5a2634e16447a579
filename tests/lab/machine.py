"""One host: a disk (an overlay in memory), and a systemd that boots on it with systemd-nspawn."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import keeper
from .errors import LabError, output_of
from .facts import Host
from .namespaces import within_lab
from .ssh import Ssh

KERNEL_FILES = {
    "/proc/sys/vm/overcommit_memory": "0\n",
    "/proc/sys/vm/swappiness": "60\n",
    "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
}
"""Settings that belong to the kernel of the outer machine. Each host has plain files of its own in their place, so
that the product may write them; nothing but what reads them notices."""

_KERNEL_FILES_AT = "/usr/lib/lab-kernel"
"""On the host's own disk, because systemd-nspawn looks up what goes below /proc after it changed root."""

_BOOT = """
for group in $LAB_GROUPS; do echo 0 > $group/cgroup.procs || exit 1; done
mount -t tmpfs tmpfs /tmp
while :; do
    systemd-nspawn "$@"
    [ $? -eq 133 ] || exit
done
"""
"""systemd-nspawn leaves directories in /tmp when it is killed: it gets one of its own. 133 asks for a reboot."""

_NSPAWN_SETTINGS = {
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",  # all that a young systemd boots on; older ones do as well
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",  # /proc/sys/net is the host's own
    "SYSTEMD_NSPAWN_LOCK": "0",
}


class Machine:
    """The power switch of one host, and the way into it without a network."""

    def __init__(self, host: Host, keeper: int, groups: Sequence[Path], console: Path) -> None:
        self.host = host
        self.console = console
        self._keeper = keeper
        self._groups = [group / host.name for group in groups]
        self._disk = f"/run/hosts/{host.name}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        """The host's file system, seen from outside; also while it is off."""
        return Path(f"/proc/{self._keeper}/root{self._disk}/root")

    @property
    def is_on(self) -> bool:
        """Whether it has power; it may still be booting."""
        return self._process is not None and self._process.poll() is None

    @property
    def leader(self) -> int | None:
        """The process that is process 1 inside, or nothing while the host is off or has hardly started."""
        try:
            found = (self._groups[0] / "payload/init.scope/cgroup.procs").read_text().split()
        except OSError:
            return None
        return int(found[0]) if found else None

    def make_disk(self, lower: Sequence[Path], ssh: Ssh) -> None:
        """Mount an empty overlay over the image and put in what a cloud would: names and keys."""
        directories = [f"{self._disk}/{name}" for name in ("up", "work", "root")]
        output_of(within_lab(self._keeper, "mkdir", "-p", *directories))
        layers = ":".join(map(str, lower))
        options = f"lowerdir={layers},upperdir={self._disk}/up,workdir={self._disk}/work"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, f"{self._disk}/root"]
        output_of(within_lab(self._keeper, *mount))
        (self.root / "etc/hostname").write_text(f"{self.host.name}\n")
        with (self.root / "etc/hosts").open("a") as names:
            names.write(f"127.0.1.1 {self.host.name}\n")
        for home in ("root", "home/ops", "home/nosudo"):
            self._let_in(self.root / home, ssh.authorized_keys)
        self.install_host_key(ssh)
        kernel = self.root / _KERNEL_FILES_AT.lstrip("/")
        kernel.mkdir()
        for path, content in KERNEL_FILES.items():
            (kernel / Path(path).name).write_text(content)

    def install_host_key(self, ssh: Ssh) -> None:
        """Give the host's sshd the present key of the lab; it counts for connections from now on."""
        key = ssh.host_key(self.host.name)
        for source, mode in ((key, 0o600), (key.with_suffix(".pub"), 0o644)):
            target = self.root / "etc/ssh" / ("ssh_host_ed25519_key" + source.suffix)
            target.write_bytes(source.read_bytes())
            target.chmod(mode)

    def boot(self) -> None:
        """Switch on; the host is there when wait_ready says so."""
        for group in self._groups:
            group.mkdir(parents=True, exist_ok=True)
        nspawn = ["--quiet", "--boot", "--keep-unit", "--register=no", f"--machine={self.host.name}"]
        nspawn += [f"--directory={self._disk}/root", f"--network-namespace-path=/run/netns/{self.host.name}"]
        nspawn += ["--console=pipe", "--capability=CAP_NET_ADMIN", "--resolv-conf=off", "--timezone=off"]
        nspawn += ["--link-journal=no"]
        for path in KERNEL_FILES:
            seen_from = "" if path.startswith("/proc/") else f"{self._disk}/root"
            nspawn.append(f"--bind={seen_from}{_KERNEL_FILES_AT}/{Path(path).name}:{path}")
        nspawn += ["systemd.unit=multi-user.target"]
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                within_lab(self._keeper, "unshare", "--mount", "sh", "-c", _BOOT, "boot", *nspawn),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, **_NSPAWN_SETTINGS, "LAB_GROUPS": " ".join(map(str, self._groups))},
            )

    def wait_ready(self, deadline: float) -> None:
        """Return when sshd listens and lets ordinary users in.

        It looks at the host from outside instead of connecting: a young sshd punishes those who connect and
        say nothing.
        """
        while not self._is_ready():
            if not self.is_on or time.monotonic() > deadline:
                tail = self.console.read_text(errors="replace")[-2000:]
                raise LabError(f"{self.host.name} does not come up; its console says:\n{tail}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        leader = self.leader
        if leader is None:
            return False
        try:
            sockets = Path(f"/proc/{leader}/net/tcp").read_text()
            closed = Path(f"/proc/{leader}/root/run/nologin").exists()
        except OSError:
            return False
        return not closed and any(":0016 " in line and " 0A " in line for line in sockets.splitlines())

    def kill(self) -> None:
        """End all processes of the host at once, and wait until they are gone."""
        if self._process is None:
            return
        self._write("cgroup.kill", "1")
        self._process.wait(10)
        deadline = time.monotonic() + 10
        while "populated 1" in (self._groups[0] / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise LabError(f"{self.host.name} cannot be killed")
            time.sleep(0.005)
        self._process = None
        # A group that was killed once kills what newer systemds start straight into its children: begin with new ones.
        keeper.remove_groups(self._groups)

    def forget(self) -> None:
        """Collect the process of a host that is gone with its lab."""
        if self._process is not None:
            self._process.wait(10)

    def freeze(self, frozen: bool) -> None:
        """Stop or go on with all processes of the host; its kernel goes on answering for them."""
        self._write("cgroup.freeze", "1" if frozen else "0")
        deadline = time.monotonic() + 5
        while f"frozen {int(frozen)}" not in (self._groups[0] / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise LabError(f"{self.host.name} does not freeze or thaw")
            time.sleep(0.005)

    def command(self, *argv: str) -> list[str]:
        """A command line that runs inside the host, past its network and its sshd."""
        leader = self.leader
        if leader is None:
            raise LabError(f"{self.host.name} is off")
        inside = ["nsenter", "--target", str(leader), "--all", "--", "env", "-i"]
        search = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*inside, search, "HOME=/root", "LANG=C.UTF-8", *argv]

    def _write(self, control: str, value: str) -> None:
        (self._groups[0] / control).write_text(value)

    def _let_in(self, home: Path, keys: str) -> None:
        owner = home.stat()
        directory, file = home / ".ssh", home / ".ssh/authorized_keys"
        directory.mkdir(mode=0o700, exist_ok=True)
        file.write_text(keys)
        file.chmod(0o600)
        for path in (directory, file):
            os.chown(path, owner.st_uid, owner.st_gid)
