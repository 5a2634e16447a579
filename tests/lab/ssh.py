"""SSH identities of a lab: one key pair for the operator, one host key for each host, made for this lab only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import output_of
from .facts import Host


class Ssh:
    """The files that an SSH client needs, in the lab's directory, which goes away with the lab."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "id_ed25519"
        self.known_hosts = directory / "known_hosts"
        self.config = directory / "config"
        directory.mkdir(mode=0o700)
        (directory / "hosts").mkdir()
        _make_key(self.key, "operator")

    @property
    def authorized_keys(self) -> str:
        """What the hosts let in."""
        return self.key.with_suffix(".pub").read_text()

    def host_key(self, name: str) -> Path:
        """The private host key of a host; its public half lies beside it."""
        return self.directory / "hosts" / name

    def new_host_key(self, name: str) -> Path:
        """Make a host key, in the place of one that may be there. Files for clients are not changed by this."""
        path = self.host_key(name)
        path.unlink(missing_ok=True)
        path.with_suffix(".pub").unlink(missing_ok=True)
        return _make_key(path, name)

    def fingerprint(self, name: str) -> str:
        """The fingerprint of the host's present key, as ssh-keygen and the deployment file write it."""
        return output_of(["ssh-keygen", "-lf", str(self.host_key(name).with_suffix(".pub"))]).split()[1]

    def known_hosts_lines(self, hosts: Iterable[Host]) -> str:
        """Lines of a known_hosts file with the present keys, by public and by private address."""
        lines = ""
        for host in hosts:
            kind, key = self.host_key(host.name).with_suffix(".pub").read_text().split()[:2]
            lines += f"{host.public},{host.private} {kind} {key}\n"
        return lines

    def write_client_files(self, hosts: Iterable[Host]) -> None:
        """Write known_hosts, and a config file by which `ssh -F config a11` goes to a host as root."""
        hosts = list(hosts)
        self.known_hosts.write_text(self.known_hosts_lines(hosts))
        aliases = "".join(f"Host {host.name}\n  HostName {host.public}\n\n" for host in hosts)
        self.config.write_text(
            f"{aliases}Host *\n"
            f"  User root\n"
            f"  IdentityFile {self.key}\n"
            f"  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n"
            f"  GlobalKnownHostsFile /dev/null\n"
            f"  StrictHostKeyChecking yes\n"
            f"  BatchMode yes\n"
            f"  ConnectTimeout 5\n"
        )


def _make_key(path: Path, comment: str) -> Path:
    output_of(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return path
