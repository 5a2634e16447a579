"""The doctor: looks at a whole deployment, writes nothing, and says what is wrong before it hurts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redkeep.errors import RedkeepError, RefusedError, UsageError, WireError
from redkeep.model.targets import Target, parse_target
from redkeep.model.topology import Address, Unreachable
from redkeep.model.values import Value
from redkeep.planning.evidence.trust import Policy
from redkeep.planning.rules import judge
from redkeep.run.eyes import Eyes
from redkeep.run.outposts import Outposts, Wanted, outposts
from redkeep.run.sessions import key_question
from redkeep.run.visits import Visitor

if TYPE_CHECKING:
    from redkeep.model.checkup import Checkup
    from redkeep.model.events import Approval, Approve
    from redkeep.model.finding import Finding, Report
    from redkeep.model.spec import Spec

#: How servers begin when they turn somebody away.
_NOT_LET_IN = ("NOAUTH", "NOPERM", "WRONGPASS", "DENIED", "ERR operation not permitted")


async def refuse_all(approval: Approval) -> bool:
    """The answer where nobody can be asked."""
    return False


class Access(Value):
    """With what, and whom it may be shown. ``password`` is for targets whose URL has none.

    ``vantages``: hosts from which reachability is judged; ``machines``: logins of hosts that nodes run on.
    ``cert`` and ``key``: what we show to servers that ask clients for a certificate.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    trust_discovered: bool = False
    allow_clear_text: bool = False
    vantages: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    cert: Path | None = None
    key: Path | None = None


class Checked(Value):
    """``suppressed``: findings that the deployment file accepts by name, with its reason.

    ``vantages``: where reachability was judged from. ``failed``: hosts that were named for it and could not be used.
    """

    report: Report
    servers: int
    sentinels: int
    suppressed: tuple[tuple[Finding, str], ...] = ()
    vantages: tuple[str, ...] = ("here",)
    failed: tuple[RedkeepError, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.report.target,
            "findings": [f.as_json() for f in self.report.findings],
            "verdict": self.report.verdict,
            "suppressed": [f.as_json() | {"because": because} for f, because in self.suppressed],
            "nodes": {"servers": self.servers, "sentinels": self.sentinels},
            "vantages": list(self.vantages),
            "failed": [{"what": e.what, "where": e.where, "next": e.next} for e in self.failed],
        }


def targets_of(texts: Sequence[str]) -> tuple[Target, ...]:
    """What was named, each address once. Raises ``UsageError``."""
    found: dict[Address, Target] = {}
    for text in texts:
        target = parse_target(text)
        found.setdefault(target.address, target)
    return tuple(found.values())


async def check_targets(targets: Sequence[Target], access: Access, approve: Approve = refuse_all) -> Checked:
    """Raises ``WireError`` where not one node could be asked, ``RefusedError`` where only consent is missing."""
    async with outposts(_wanted(access), key_question(approve)) as posts:
        checkup, _ = await examine(targets, access, posts)
        return judged(checkup, posts=posts)


async def examine(
    targets: Sequence[Target], access: Access, posts: Outposts | None = None, spec: Spec | None = None
) -> tuple[Checkup, Visitor]:
    """The look, and with what it was done. Raises as ``check_targets`` does. ``spec``: the file that names the hosts."""
    from redkeep.run.hostlook import is_here, this_machine, with_this_machine
    from redkeep.run.survey import explore_with

    posts = posts or Outposts()
    visitor = _visitor(targets, access)
    eyes = Eyes(visitor, posts.visitors(visitor))
    title = ", ".join(map(str, targets))
    names = frozenset(t.name for t in targets if t.name)
    # the machine is looked at meanwhile
    facts = asyncio.create_task(this_machine()) if any(is_here(t.address.host) for t in targets) else None
    try:
        checkup = await explore_with(title, [t.address for t in targets], eyes, names, posts.names)
        _require_watched(checkup, names)
        whole = replace(await with_this_machine(checkup, facts), left_out=posts.left_out)
    finally:
        if facts:
            facts.cancel()
    if posts.machines:
        from redkeep.run.machinelook import with_machines

        whole = await with_machines(whole, posts.machines, spec)
    if not checkup.seen and judged(whole).report.verdict == "ok":
        if posts.errors:
            raise next(iter(posts.errors.values()))
        require_one(checkup)
    return whole, eyes.whole


async def check_file(spec: Spec, file: Path, access: Access, approve: Approve) -> Checked:
    """Raises ``UsageError`` before the first apply, and what opening a deployment raises."""
    if spec.adopted:
        from redkeep.usecases.adopted import check_adopted

        return await check_adopted(spec, file, access, approve)
    return await check_own(spec, file, access, approve)


async def check_own(spec: Spec, file: Path, access: Access, approve: Approve) -> Checked:
    """A deployment that Redkeep made."""
    async with opened_own(spec, file, access, approve) as (look, posts):
        return judged(await look(), posts=posts)


@contextlib.asynccontextmanager
async def opened_own(
    spec: Spec, file: Path, access: Access, approve: Approve
) -> AsyncIterator[tuple[Callable[[], Awaitable[Checkup]], Outposts]]:
    """Its sessions, and how to look with them."""
    from redkeep.run.opening import opened
    from redkeep.run.ownsurvey import survey

    if access.machines:
        hint = "its hosts are in the file, with their ssh:"
        raise UsageError("--ssh is for what Redkeep did not deploy", where=str(file), next=hint)
    accept = key_question(approve)
    async with opened(spec, file, keep=False, accept_key=accept) as deployment:
        wanted = Wanted(access.vantages, spec=spec, folder=deployment.vault.root)
        async with outposts(wanted, accept, deployment.fleet.hosts, deployment.fleet.failed) as posts:

            async def look() -> Checkup:
                return await survey(deployment, allow_clear_text=access.allow_clear_text, posts=posts)

            yield look, posts


def _wanted(access: Access) -> Wanted:
    return Wanted(access.vantages, access.machines)


def judged(checkup: Checkup, accepts: Spec | None = None, posts: Outposts | None = None) -> Checked:
    """What the rules say. ``accepts``: the file of a deployment that Redkeep did not make, for what it accepts."""
    found = judge(checkup, accepts)
    # those that did not answer are what the others list them as
    listed = {w.address for _, v in checkup.sentinels for e in v.monitored for w in e.watched_sentinels}
    sentinels = sum(n.seen.role == "sentinel" if n.seen else n.address in listed for n in checkup.nodes)
    return Checked(
        found.report,
        len(checkup.nodes) - sentinels,
        sentinels,
        found.suppressed,
        tuple(checkup.vantages),
        tuple(posts.errors.values()) if posts else (),
    )


def _visitor(targets: Sequence[Target], access: Access) -> Visitor:
    from redkeep.wire.client import Login

    given = [t for t in targets if t.password]
    logins: dict[Address | None, Login] = {t.address: Login(t.user or "default", t.password) for t in given}
    if access.password:
        logins[None] = Login(access.user or "default", access.password)
    elif given:
        servers = [t for t in given if not t.sentinel] or given
        logins[None] = logins[servers[0].address]
    tls = any(t.tls for t in targets)
    policy = Policy(trust_discovered=access.trust_discovered, allow_clear_text=access.allow_clear_text)
    return Visitor(
        policy,
        logins,
        frozenset(t.address for t in targets),
        tls=tls,
        schemes={t.address: t.tls for t in targets},
        context=_context(access) if tls or access.ca or access.cert or access.key else None,
        own_ca=access.ca is not None,
    )


def _context(access: Access) -> ssl.SSLContext:
    """With the certificate that we show ourselves. Raises ``UsageError``."""
    if access.key and not access.cert:
        raise UsageError("a key without its certificate", where=str(access.key), next="name it with --cert")
    context = tls_context(access.ca)
    if access.cert:
        try:
            context.load_cert_chain(access.cert, access.key, password="")
        except (OSError, ValueError, ssl.SSLError) as error:
            where = f"{access.cert}{f', {access.key}' if access.key else ''}"
            hint = (
                "a certificate and its private key without a passphrase, in PEM form, in one file or in two"
            )
            raise UsageError(f"no usable certificate and key: {error}", where=where, next=hint) from None
    return context


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """A CA that the user gave vouches for whatever name; the system's only for the name that was used."""
    if ca is None:
        return ssl.create_default_context()
    from redkeep.wire.tls import client_context

    try:
        return client_context(ca.read_bytes())
    except (OSError, ValueError, ssl.SSLError) as error:
        raise UsageError(f"no usable CA file: {error}", where=str(ca), next="a file in PEM form") from None


def _require_watched(checkup: Checkup, names: frozenset[str]) -> None:
    """A name that no Sentinel knows is a slip of the pen."""
    known = {e.name for _, v in checkup.sentinels for e in v.monitored}
    if names and checkup.sentinels and not names & known:
        where = ", ".join(n.name for n, _ in checkup.sentinels[:4])
        told = ", ".join(sorted(known)[:8]) or "nothing at all"
        raise UsageError(f"no Sentinel watches {', '.join(names)}", where=where, next=f"they watch {told}")


def require_one(checkup: Checkup) -> None:
    """A look that saw nothing and found nothing is an error, not a clean bill of health."""
    visits = list(checkup.visits.values())
    where = ", ".join(str(a) for a in list(checkup.visits)[:4])
    withheld = next((v for v in visits if v.login == "withheld"), None)
    if withheld is not None:
        raise RefusedError(withheld.login_detail, where=where, next="name the option, if that is acceptable")
    refused = next((v for v in visits if v.ping.startswith(_NOT_LET_IN)), None)
    if refused is not None:
        said = refused.login_detail if refused.login == "refused" else refused.ping
        hint = "redis://:PASSWORD@HOST, the variable REDKEEP_PASSWORD, or --password-file"
        raise WireError(f"not let in: {said}", where=where, next=hint)
    reasons = [n.view.reason for n in checkup.nodes if isinstance(n.view, Unreachable) and n.view.reason]
    reason = reasons[0] if reasons else "an answer without words"
    hint = "is a Redis or Valkey up there, and does this machine get through to it?"
    if reason.startswith("no address is known"):
        hint = "check the spelling of the name, or give an IP address"
    raise WireError(reason, where=where, next=hint)
