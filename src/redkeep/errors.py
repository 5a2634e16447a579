"""Every error that Redkeep raises on purpose.

    RedkeepError
    ├── UsageError            exit 2   the command line or the deployment file
    │   └── SpecError                  the deployment file, with path and line
    ├── RefusedError          exit 4   we could, and will not: a risk nobody accepted
    ├── HostError             exit 1   one host
    │   ├── HostUnreachable            no SSH: network, timeout, key, sudo
    │   └── CommandFailed              a command on a host ended badly
    ├── EngineError           exit 1   the server software: cannot be had, built or run
    ├── WireError             exit 1   one server
    │   ├── NodeUnreachable            no connection, or it went silent
    │   └── ReplyError                 the server answered with an error
    ├── EvidenceError         exit 1   a dead server's disk: damaged, or cannot be read as one
    ├── LockedError           exit 1   another operator is at work
    └── StuckError            exit 1   the same plan twice without progress

An error is three lines for the person who sees it: what happened, where, what to do next.
"""

from __future__ import annotations


class RedkeepError(Exception):
    """The root. ``what`` happened, ``where`` (a host, a file and line, a server), and what to do ``next``."""

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.where, self.next) if line)


class UsageError(RedkeepError):
    """The command line or the deployment file is not usable as it stands."""

    exit_status = 2


class SpecError(UsageError):
    """The deployment file; ``where`` is ``redkeep.yaml:12: hosts[2].private``."""


class RefusedError(RedkeepError):
    """Redkeep could do it and does not: nobody accepted the risk, or it is not ours to touch."""

    exit_status = 4


class HostError(RedkeepError):
    """Something about one host."""


class HostUnreachable(HostError):
    """No session with the host: network, timeout, host key, login or sudo."""


class NotForwarded(OSError):
    """A host's sshd lets no connection through (``AllowTcpForwarding no``). Raised where a connection was wanted, so it
    is an ``OSError`` as those are, and no ``RedkeepError``."""


class CommandFailed(HostError):
    """A command on a host ended with another status than 0.

    ``output`` is the end of what it printed on standard error, for the journal.
    """

    def __init__(
        self, what: str, *, where: str = "", next: str = "", status: int = 1, output: str = ""
    ) -> None:
        super().__init__(what, where=where, next=next)
        self.status = status
        self.output = output


class EngineError(RedkeepError):
    """The server software cannot be had, built or run here."""


class WireError(RedkeepError):
    """Something about one server, as its protocol shows it."""


class NodeUnreachable(WireError):
    """No connection to the server, or it stopped answering within the timeout.

    ``refused``: the host answered that nobody listens on the port, so the process is known to be down.
    """

    refused = False


class ReplyError(WireError):
    """The server answered with an error; ``what`` is its text (``NOAUTH Authentication required.``)."""

    @property
    def code(self) -> str:
        """The first word: ``NOAUTH``, ``MOVED``, ``CLUSTERDOWN``, ``ERR``."""
        return self.what.split(" ", 1)[0]


class EvidenceError(RedkeepError):
    """A disk or image cannot be read as one; ``where`` names it, and the part of it."""


class LockedError(RedkeepError):
    """Another operator holds the deployment's lock; ``where`` says who and since when."""


class StuckError(RedkeepError):
    """The same plan came out twice although its steps were executed; ``where`` names the step."""
