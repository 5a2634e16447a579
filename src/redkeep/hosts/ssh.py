"""A host over SSH: one session, many commands at once. The only importer of asyncssh, and only when it connects.

What people have set up for ``ssh`` counts: ``~/.ssh/config`` with its aliases and ProxyJump, ssh-agent, keys.
Only public keys log in; nothing here asks for a password.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from redkeep.errors import HostUnreachable, NotForwarded
from redkeep.hosts import sshproblems as problems
from redkeep.hosts.sessions import ProcessSession
from redkeep.hosts.shell import GRACE, Raw, ShellHost, limited, ran_out

if TYPE_CHECKING:
    import asyncssh

    from redkeep.hosts.base import Session
    from redkeep.hosts.hostkeys import HostKeys

#: Seconds until a host counts as unreachable, from the first packet to the login.
CONNECT_TIMEOUT = 10.0
#: A peer that answers nothing for this many seconds, this many times, is dead.
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5, 3
#: Commands at once on one session; sshd's MaxSessions is 10 by default.
SESSIONS = 8
#: Kinds of host keys to ask a server for, to find the one whose fingerprint the deployment file names.
_KEY_KINDS = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"]
#: No keys, no CA's, none revoked, ...: as asyncssh takes the content of ``known_hosts``.
_NOTHING = ((),) * 7
_LOGIN = re.compile(r"(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^]]+)]|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?")


def load_library() -> None:
    """Imports asyncssh without its search for liboqs, which starts a linker and a compiler and takes longer than a
    command on a host. Hosts that offer post-quantum key exchange offer others as well."""
    import ctypes.util

    search = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None if "oqs" in name else search(name)
    try:
        import asyncssh  # noqa: F401
    finally:
        ctypes.util.find_library = search


class SshHost(ShellHost):
    """Connects on first use, and again after its session was lost.

    ``login`` is ``[user@]host[:port]``, or an alias of ``~/.ssh/config``. ``fingerprint`` (``SHA256:...``), where
    given, is the only host key accepted. ``bastions`` is shared by hosts that jump through the same ones.
    """

    def __init__(
        self,
        name: str,
        login: str,
        keys: HostKeys,
        *,
        fingerprint: str | None = None,
        config: Sequence[Path] | None = None,
        bastions: dict[str, SshHost] | None = None,
    ) -> None:
        match = _LOGIN.fullmatch(login)
        if not match:
            raise HostUnreachable(
                f"not an SSH login: {login!r}",
                where=f"host {name}",
                next="write user@address or user@address:port",
            )
        load_library()
        self.name = name
        self._login = login
        self._wanted: dict[str, Any] = {
            "host": match["six"] or match["host"],
            **({"username": match["user"]} if match["user"] else {}),
            **({"port": int(match["port"])} if match["port"] else {}),
            # said aloud, since the first look at the options reads no file by itself (asyncssh 2.24)
            "config": [str(path) for path in (config if config is not None else _own_config())],
        }
        self._keys = keys
        self._fingerprint = fingerprint
        self._config = config
        self._bastions = {} if bastions is None else bastions
        self._bastion: SshHost | None = None
        self._guests: set[SshHost] = set()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(SESSIONS)
        self._user = ""
        self._sudo_works = False

    @property
    def is_local(self) -> bool:
        return False

    @property
    def peer(self) -> str:
        """The IP address that the session leads to; empty without a session, or through a bastion."""
        name = self._connection.get_extra_info("peername") if self._connection else None
        return str(name[0]) if name else ""

    async def open(self) -> asyncssh.SSHClientConnection:
        """The session, made where there is none; ``HostUnreachable`` after ``CONNECT_TIMEOUT`` at the latest."""
        async with self._opening:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            return self._connection

    async def connect(
        self, address: str, port: int, *, timeout: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See ``Host.connect``. Raises ``OSError`` as a socket would: refused, no route, or ``TimeoutError``.

        ``NotForwarded`` where sshd forbids it (RFC 4254, 5.1: administratively prohibited).
        """
        import asyncssh

        try:
            async with asyncio.timeout(timeout):
                connection = await self.open()
                reader, writer = await connection.open_connection(address, port, encoding=None)
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise NotForwarded(f"sshd of {self.name} forwards nothing (AllowTcpForwarding)") from None
            kind = ConnectionRefusedError if "refused" in error.reason.lower() else OSError
            # so sshd says where the connection failed at once, whatever the reason
            vague = error.reason == "open failed"
            reason = "no way there (no route, or refused)" if vague else error.reason
            raise kind(reason) from None
        except asyncssh.DisconnectError as error:
            raise problems.lost(self.name, self._login, error) from error
        # The channel's ends do what StreamReader and StreamWriter do.
        return cast(asyncio.StreamReader, reader), cast(asyncio.StreamWriter, writer)

    async def session(self, script: str) -> Session:
        """See ``Host.session``. It takes none of the slots for short commands."""
        import asyncssh

        try:
            connection = await self.open()
            sudo = "" if self._user == "root" else "sudo -n "
            process = await connection.create_process(f"{sudo}sh -c {shlex.quote(script)}", encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise problems.lost(self.name, self._login, error) from error
        return ProcessSession(process)

    async def close(self) -> None:
        """Ends the session, and the bastion's with its last guest."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
            try:
                async with asyncio.timeout(GRACE):
                    await connection.wait_closed()
            except TimeoutError:  # a dead peer does not take the goodbye
                connection.abort()
        if self._bastion is not None:
            self._bastion._guests.discard(self)
            if not self._bastion._guests:
                await self._bastion.close()

    async def _execute(self, script: str, *, stdin: bytes | Path, timeout: float, root: bool) -> Raw:
        # The limit holds on the host too, where the command would outlive a lost session.
        command = shlex.join(limited(script, timeout))
        async with self._slots:
            connection = await self.open()
            sudo = root and self._user != "root"
            raw = await self._session(connection, f"sudo -n {command}" if sudo else command, stdin, timeout)
            if sudo and not self._sudo_works:
                if raw.status != 0:
                    check = await self._session(connection, "sudo -n true", b"", CONNECT_TIMEOUT)
                    if check.status != 0:
                        raise problems.no_sudo(self.name, self._user, check.stderr.decode(errors="replace"))
                self._sudo_works = True
        return raw

    async def _session(
        self, connection: asyncssh.SSHClientConnection, command: str, stdin: bytes | Path, timeout: float
    ) -> Raw:
        import asyncssh

        started = time.monotonic()
        source: dict[str, Any] = {"stdin": str(stdin)} if isinstance(stdin, Path) else {"input": stdin}
        try:
            async with asyncio.timeout(timeout + 2 * GRACE):
                done = await connection.run(command, encoding=None, check=False, **source)
        except TimeoutError:
            return Raw(124, b"", b"", expired=True)
        except (asyncssh.Error, OSError) as error:
            raise problems.lost(self.name, self._login, error) from error
        status = done.exit_status
        if status is None or (status < 0 and done.exit_signal is None):
            raise problems.lost(self.name, self._login, None)
        stdout, stderr = cast(bytes, done.stdout or b""), cast(bytes, done.stderr or b"")
        return Raw(status, stdout, stderr, expired=ran_out(status, time.monotonic() - started, timeout))

    async def _connect(self) -> asyncssh.SSHClientConnection:
        import asyncssh

        self._sudo_works = False
        try:
            # A first look at the configuration, without loading keys: user, port and bastion.
            options = await asyncssh.SSHClientConnectionOptions.construct(**self._wanted, client_keys=None)
            self._user = options.username
            tunnel = await self._through(cast("str | None", options.tunnel))
            name = options.host_key_alias or options.host
            label = name if options.port == 22 else f"[{name}]:{options.port}"
            if self._fingerprint:
                return await self._named(label, self._fingerprint, tunnel)
            return await self._known(label, tunnel)
        except (asyncssh.Error, OSError, ValueError) as error:
            raise _explain(self.name, self._login, error) from error

    async def _through(self, jump: str | None) -> asyncssh.SSHClientConnection | None:
        """The session of the (last) bastion that ``ProxyJump`` names."""
        if not jump or jump.lower() == "none":
            return None
        before, _, last = jump.rpartition(",")
        if jump not in self._bastions:
            host = SshHost(f"bastion {last}", last, self._keys, config=self._config, bastions=self._bastions)
            host._wanted |= {"tunnel": before} if before else {}
            self._bastions[jump] = host
        self._bastion = self._bastions[jump]
        self._bastion._guests.add(self)
        return await self._bastion.open()

    async def _known(self, label: str, tunnel: Any) -> asyncssh.SSHClientConnection:
        """Connects to a host that is in ``known_hosts``; where it is not, asks, and connects again."""
        while True:
            trusted = _trusted(self._keys.lines(), label)
            gate = _gate(None)
            try:
                return await self._attempt(tunnel, gate, known_hosts=trusted)
            except _refusals():
                if gate.offered is None and trusted[0]:  # perhaps it has only keys of another kind
                    with suppress(*_refusals()):
                        await self._attempt(
                            tunnel, gate, known_hosts=_NOTHING, server_host_key_algs=_KEY_KINDS
                        )
                if gate.offered is None:
                    raise
            found = gate.offered.get_fingerprint()
            if trusted[0]:
                raise problems.key_changed(
                    self.name, label, {key.get_fingerprint() for key in trusted[0]}, {found}
                )
            key = gate.offered.export_public_key("openssh").decode()
            if not await self._keys.first_use(f"{self.name} ({label})", label, key, found):
                raise problems.key_unknown(self.name, label, found)

    async def _named(self, label: str, fingerprint: str, tunnel: Any) -> asyncssh.SSHClientConnection:
        """Connects to a host with the key of this fingerprint, whichever of the server's keys that is."""
        found: set[str] = set()
        for kinds in ({}, *({"server_host_key_algs": [kind]} for kind in _KEY_KINDS)):
            gate = _gate(fingerprint)
            try:
                return await self._attempt(tunnel, gate, known_hosts=_NOTHING, **kinds)
            except _refusals():
                if gate.offered is not None:
                    found.add(gate.offered.get_fingerprint())
                elif not kinds:
                    raise
        raise problems.key_changed(self.name, label, {fingerprint}, found)

    async def _attempt(self, tunnel: Any, gate: Any, **settings: Any) -> asyncssh.SSHClientConnection:
        import asyncssh

        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await asyncssh.connect(
                **self._wanted | {"tunnel": tunnel},
                client_factory=lambda: gate,
                preferred_auth="publickey",
                keepalive_interval=KEEPALIVE_SECONDS,
                keepalive_count_max=KEEPALIVE_COUNT,
                **settings,
            )


def _own_config() -> list[Path]:
    path = Path("~/.ssh/config").expanduser()
    return [path] if os.access(path, os.R_OK) else []


def _refusals() -> tuple[type[Exception], ...]:
    """What a connection ends with where the two sides do not agree on a host key; who hangs up first is a race."""
    import asyncssh

    return (
        asyncssh.HostKeyNotVerifiable,
        asyncssh.KeyExchangeFailed,
        asyncssh.ConnectionLost,
        ConnectionResetError,
    )


def _gate(fingerprint: str | None) -> Any:
    """A client that notes the key which a server offers, and trusts it only where it has this fingerprint."""
    import asyncssh

    class Gate(asyncssh.SSHClient):
        offered: asyncssh.SSHKey | None = None

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            self.offered = key
            return fingerprint is not None and key.get_fingerprint() == fingerprint

    return Gate()


def _trusted(lines: Sequence[str], label: str) -> Any:
    """What ``known_hosts`` says of a host: its keys, its CA's keys, revoked ones, and so on, as asyncssh takes it."""
    from asyncssh.known_hosts import SSHKnownHosts

    known = SSHKnownHosts()
    for line in lines:
        with suppress(ValueError):  # a line that OpenSSH would skip as well
            known.load(line)
    return known.match(label, "", None)


def _explain(host: str, login: str, error: Exception) -> HostUnreachable:
    """The three lines for a session that could not be made."""
    import asyncssh

    if isinstance(error, asyncssh.PermissionDenied):
        return problems.login_refused(host, login)
    if isinstance(error, asyncssh.KeyImportError):
        return problems.key_unusable(host, login, str(error))
    return problems.no_session(host, login, error, CONNECT_TIMEOUT)
