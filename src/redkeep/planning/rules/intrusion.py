"""Signs that somebody has been in: what automated attacks leave behind in a server's data and settings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from redkeep.model.checkup import BREAKS_OFF, NOT_THIS_PROTOCOL, Checkup, Node, Sample, Visit
from redkeep.model.topology import Address, NodeView
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import listed

#: A line of a crontab that starts something: five fields of time with a star in them, or a word for them, and then a
#: download, a shell or a decoder.
_WHEN = r"(?:(?=[\d*/, \t-]*\*)(?:[\d*/,-]+[ \t]+){5}|@(?:reboot|hourly|daily|weekly|monthly)[ \t])"
_CRON = re.compile(
    rf"^[ \t]*{_WHEN}.*?"
    r"(?:\b(?:curl|wget|wd1|cd1|bash|sh|python[23]?|perl|base64|chattr|nc)\b|/tmp/|/dev/tcp/)",
    re.MULTILINE,
)
#: A line of authorized_keys: at the beginning of a line, and long enough to be a key.
_SSH_KEY = re.compile(r"^\s*(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-\S+) AAAA[0-9A-Za-z+/]{40,}", re.MULTILINE)

#: Where a snapshot is a file that something else runs or trusts.
_FOLDERS = re.compile(
    r"/(?:var/spool/cron(?:/.*)?|etc/cron(?:\.[a-z]+|tab)?(?:/.*)?|etc/(?:profile|init|rc\d?)\.d|(?:.*/)?\.ssh|etc"
    r"|usr/(?:local/)?(?:s?bin|lib(?:64)?)(?:/.*)?|s?bin|lib(?:64)?|var/www(?:/.*)?|etc/systemd(?:/.*)?)/?"
)
_FILES = re.compile(
    r"(?:authorized_keys\d?|crontab|root|.*\.so|ld\.so\.preload|.*\.(?:php|jsp|jspx|asp|aspx|sh|service))"
)

#: Modules that are sold or shipped by those who make Redis, Valkey and their services.
_KNOWN_MODULES = """
    rejson json redisjson search searchlight ft timeseries bf bloom cf cms topk tdis graph falkordb ai rg redisgears
    redisgears_2 vectorset vset ldap valkey-json valkey-bloom valkey-search helloacl hellocluster tairhash tairstring
    tairzset redis-cell cell nghash redisraft lua
"""
_MODULES = frozenset(_KNOWN_MODULES.split())

_WHY = (
    "This is what automated attacks do to reach the machine beneath. Take it as broken into until you know better: who "
    "could write this could read and change everything."
)
_FIX = (
    "keep a copy of the data and the logs, close the port, look at cron, authorized_keys and running processes of the "
    "host, then move to a fresh host with new passwords (redkeep rescue)"
)


@rule("signs-of-intrusion", "error", needs=("config", "data", "modules"))
def signs_of_intrusion(checkup: Checkup) -> Iterator[Found]:
    for node, view in checkup.servers:
        for evidence in (
            *_in_data(node),
            *_in_settings(node),
            *_in_modules(node),
            *_strangers(checkup, node, view),
        ):
            yield Found(node.name, evidence, _WHY, _FIX)


def _in_data(node: Node) -> Iterator[str]:
    for sample in node.details.samples:
        for pattern, what in ((_CRON, "a cron line"), (_SSH_KEY, "an SSH public key")):
            if match := pattern.search(sample.text):
                yield f"the key {sample.key[:60]!r} holds {what}: {_excerpt(match)!r} (GET){_surrounded(sample)}"


def _excerpt(match: re.Match[str]) -> str:
    return " ".join(match[0].split())[:60]


def _surrounded(sample: Sample) -> str:
    """Line feeds around it keep it apart from the rest of a snapshot, so that cron and sshd find it."""
    return (
        ", with line feeds around it" if sample.text.startswith("\n") and sample.text.endswith("\n") else ""
    )


def _in_settings(node: Node) -> Iterator[str]:
    folder, file = node.setting("dir") or "", node.setting("dbfilename") or ""
    if _FOLDERS.fullmatch(folder) and not (_beside_its_program(node, folder) and file.endswith(".rdb")):
        yield f"dir is {folder} (CONFIG GET), where snapshots become something that the system runs or trusts"
    if _FILES.fullmatch(file):
        yield f"dbfilename is {file} (CONFIG GET), which is no name of a snapshot"


def _beside_its_program(node: Node, folder: str) -> bool:
    """Started by hand from where it was installed to; nothing there is run because it is named ``dump.rdb``."""
    program = node.seen.info.get("executable", "") if node.seen else ""
    return program.rpartition("/")[0] == folder.rstrip("/") != ""


def _in_modules(node: Node) -> Iterator[str]:
    unknown = [name for name in node.details.modules if name.lower() not in _MODULES]
    if unknown:
        yield f"module {listed(unknown)} is loaded (MODULE LIST), which nobody known ships; a module runs any code"


def _strangers(checkup: Checkup, node: Node, view: NodeView) -> Iterator[str]:
    """Replication with somebody outside. The deployment file knows everybody; else only what is no server at all."""
    primary = checkup.primary_of(node)
    if view.primary is not None and (primary is None or primary.seen is None):
        visit = checkup.visits.get(view.primary)
        # in a Cluster nobody is told by REPLICAOF whom to follow
        if visit is not None and visit.connects and not visit.ping and _pretends(visit) and not view.cluster:
            yield f"it replicates from {view.primary} (INFO replication), where no Redis or Valkey answers PING and INFO"
        elif _outside(checkup, view.primary):
            yield f"it replicates from {view.primary} (INFO replication), which is not in the deployment file"
    for line in view.replicas:
        if not view.cluster and _outside(checkup, line.address):
            yield f"{line.address} replicates from it (INFO replication), which is not in the deployment file"


def _pretends(visit: Visit) -> bool:
    """It answers, and not as a server does. One that says nothing may hang, or be full, or ask for a certificate."""
    return not visit.tls and any(words in visit.detail for words in (BREAKS_OFF, NOT_THIS_PROTOCOL))


def _outside(checkup: Checkup, address: Address) -> bool:
    """Only a deployment file says who belongs. Its own nodes may be known by another address of their host."""
    if checkup.spec is None:
        return False
    known = {n.address.host for n in checkup.nodes}
    for host in checkup.hosts.values():
        known |= set(host.seen.addresses) | {host.seen.outgoing} if host.seen else set()
    known |= {a for h in checkup.spec.hosts for a in (h.private, h.public) if a}
    return address.host not in known
