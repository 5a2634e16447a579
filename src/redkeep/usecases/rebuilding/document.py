"""REBUILD.md: the steps in their order, what to rotate, what was left out and why. Names from the disk stay names.

Each is an inline code of its own, whose fence is longer than any backtick in it; command lines are indented, and what
cannot be on one line is not in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from redkeep.usecases.init import one_line
from redkeep.usecases.rebuilding.deployments import Deployment

#: How each kind of secret is replaced, in the order in which that is urgent.
ROTATION: dict[str, str] = {
    "cloud key": "It opens the whole account: disable it in the console "
    "now (CAM, RAM, IAM), look in its audit log for what it was "
    "used for since, then delete it. The new one belongs to a user with few rights, and in no file of an application.",
    "account elsewhere": "Revoke it where it is used (Git host, registry, "
    "cluster), look there at the last logins, make a new one.",
    "SSH key": "Make a new pair. Take the old public key out of every authorized_keys and every Git host that knows it.",
    "VPN key": "Revoke the peer at the other end of the tunnel and make new keys; whoever has it is in your network.",
    "TLS key": "Make a new key with the new certificate; have the old certificate revoked by whoever issued it.",
    "TLS account": "Register a new account with the issuer (certbot, acme.sh); deactivate the old one.",
    "SSH host key": "The new system has one of its own. Clients forget the old one: ssh-keygen -R HOST.",
    "account password": "A new one, and keys instead of passwords for "
    "SSH. Where somebody used the same one elsewhere: there too.",
    "database password": "The new server gets new accounts with new passwords "
    "and only the rights that they need; then the settings.",
    "Redis password": "redkeep makes a new one on the first apply; redkeep client prints the application's settings.",
    "mail password": "A new one at the mail provider. Look whether mail was sent in your name.",
    "password of another service": "A new one there; look whether that service is open to the internet, too.",
    "application secret": "A new one. What it signed (sessions, tokens, "
    "links) can be forged until it is changed, and ends with it.",
}


@dataclass(frozen=True)
class Places:
    """``evidence`` and ``out`` are absolute; ``web_root`` is where the sites' files will be on the new host."""

    evidence: str
    out: str
    web_root: str
    is_bundle: bool

    @property
    def bundle(self) -> str:
        return self.evidence if self.is_bundle else f"{self.out.rpartition('/')[0]}/bundle"


def code(text: str) -> str:
    """Inline code of Markdown (CommonMark, code spans): nothing in it means anything."""
    shown = one_line(text) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def command(*words: str) -> str:
    """A line of a code block."""
    return "    " + " ".join(words)


def rebuild(
    found: dict[str, Any], made: Sequence[Deployment], told: Sequence[dict[str, Any]], at: Places
) -> str:
    """The whole document."""
    parts = [
        *_beginning(found, at),
        *_doors(found),
        *_host(),
        *_redis(made, at),
        *_databases(found, at),
        *_files(found, at),
        *_applications(told),
        *_nginx(found, at),
        *_end(made),
        *_rotate(found),
        *_left_out(found),
    ]
    return "\n".join(parts) + "\n"


def _beginning(found: dict[str, Any], at: Places) -> Iterator[str]:
    system = found["inspect"]["system"]
    yield "# Rebuilding " + code(str(system.get("hostname") or "the server"))
    yield ""
    yield f"From {code(at.evidence)}: {code(str(system.get('name') or 'no known system'))}."
    signs = sum(f["severity"] == "error" for f in found["inspect"]["intrusion"])
    if signs:
        yield f"It was broken into: {signs} signs. Nothing of its programs, keys or configuration is trusted below."
    yield (
        "The commands run in this directory, and find the bundle "
        f"in {code(at.bundle)}: change that where you take both to the"
    )
    yield "new host."
    yield ""
    yield "## 1. Before anything"
    yield ""
    yield (
        "- Keep the snapshot of the old disk, and the disk, until "
        "everything below is done. Nothing here needs the old system to run."
    )
    yield "- Build on a new system. The old one is not cleaned: one does not find everything."
    if not at.is_bundle:
        yield "- Take what is needed off the disk, verified:"
        yield ""
        yield command("redkeep rescue extract", quote(one_line(at.evidence)), quote(one_line(at.bundle)))
        yield ""
        yield "  This plan, made again from the bundle, knows less of secrets than the one from the disk."
    else:
        yield "- This plan is from a bundle: secrets in files that were not taken are not in it. Run it on the disk as well."
    yield ""


def _doors(found: dict[str, Any]) -> Iterator[str]:
    urgent = [
        one
        for one in found["exposed"]
        if one["kind"] in ("cloud key", "account elsewhere", "SSH key", "VPN key")
    ]
    yield "## 2. Close the doors to elsewhere"
    yield ""
    if urgent:
        yield "These open more than the old server. First of all, before the new one is built:"
        yield ""
        yield from (f"- {one['kind']}: {_where(one)}" for one in urgent[:50])
    else:
        yield (
            "No key of a cloud account, no SSH key and no account "
            "elsewhere was found on it. Look through section 10 all the same."
        )
    yield ""


def _host() -> Iterator[str]:
    yield "## 3. A new host behind a closed security group"
    yield ""
    yield (
        "A new system from the cloud's own image; log in by key "
        "only. Then one of these, which leave open 80, 443, and SSH from"
    )
    yield "one address, and take the server out of its other groups:"
    yield ""
    yield command("REGION=... INSTANCE=... sh security-group-tencent.sh")
    yield command("REGION=... INSTANCE=... VPC=... sh security-group-alibaba.sh")
    yield ""
    yield "Each command says above it what it must show. Redis' port is never among them."
    yield ""


def _redis(made: Sequence[Deployment], at: Places) -> Iterator[str]:
    yield "## 4. Redis"
    yield ""
    if not made:
        yield "No configuration of Redis was found."
        yield ""
        return
    for one in made:
        if len(made) > 1:
            yield f"### {one.file}: {one.mode}, port {one.port}"
            yield ""
        file = "" if one.file == "redkeep.yaml" else f" -f {one.file}"
        yield f"Fill in the hosts in {code(one.file)}, then:"
        yield ""
        yield command(f"redkeep plan{file}")
        yield command(f"redkeep apply{file}")
        for path in one.data if len(one.data) > 1 or len(made) > 1 else [""]:
            if path.isprintable():
                named = [quote(path)] if path else []
                words = (quote(one_line(at.bundle)), *named, *one.options, f"--into {one.file}")
                yield command("redkeep rescue redis", *words)
        yield command(f"redkeep check{file}")
        yield ""
        if one.changes:
            yield "What is not as it was:"
            yield ""
            yield from (f"- {_text(change)}" for change in one.changes)
            yield ""
        if one.notes:
            yield "To know:"
            yield ""
            yield from (f"- {_text(note)}" for note in one.notes)
            yield ""


def _text(text: str) -> str:
    """Our own sentence with words of the disk in it: what Markdown or HTML would take for its own is escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", one_line(text))


def _databases(found: dict[str, Any], at: Places) -> Iterator[str]:
    databases = found["inspect"]["databases"]
    yield "## 5. Databases"
    yield ""
    if not databases:
        yield "No data directory of MySQL or MariaDB was found."
    for number, database in enumerate(databases, start=1):
        yield (
            f"- {code(database['path'])}: {_text(database['flavor'])} "
            f"{_text(database['version'])}, {_text(database['state'])}. "
            "A dump that loads elsewhere, from a copy, by a clean server:"
        )
        yield ""
        directory = database["path"]
        if directory.isprintable():
            bundle = quote(one_line(at.bundle))
            yield command(
                "redkeep rescue mysql", bundle, f"--datadir {quote(directory)} --out dumps-{number}"
            )
            yield ""
        yield (
            "  Routines, triggers, events and accounts are in "
            "a file of their own: read it before anything of it is loaded."
        )
    yield ""


def _files(found: dict[str, Any], at: Places) -> Iterator[str]:
    yield "## 6. The sites' files"
    yield ""
    directories = list(dict.fromkeys(d for site in found["sites"] for d in site["directories"]))
    if not directories:
        yield "No site of nginx serves files."
        yield ""
        return
    yield (
        "To where the new configuration looks for them, below "
        f"{code(at.web_root)}; readable for nginx, and nothing executable:"
    )
    yield ""
    for directory in directories:
        source, target = f"{at.bundle.rstrip('/')}/files{directory}", f"{at.web_root}{directory}"
        yield command("mkdir -p", quote(target))
        yield command("cp -R", quote(f"{source}/."), quote(target))
    yield command("chmod -R u=rwX,go=rX", quote(at.web_root))
    yield ""
    yield "Look for programs among the pictures before the site is public; none of these should be there:"
    yield ""
    yield command(
        "find",
        quote(at.web_root),
        "-type f -iregex '.*\\.\\(php[0-9]*\\|phtml\\|phar\\|jsp\\|sh\\|py\\|pl\\)'",
    )
    yield ""
    yield (
        "Compare what is code with your own repository, and "
        "take the code from there: a back door in it comes back otherwise."
    )
    yield ""


def _applications(told: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## 7. Applications"
    yield ""
    yield (
        "Build them anew from your own sources; a jar from the "
        "old disk may have been changed. Their settings get new passwords"
    )
    yield "(section 10), from the environment rather than from the jar."
    yield ""
    for application in told:
        libraries = ", ".join(
            f"{name} {version}" for name, version in sorted(application["libraries"].items())
        )
        yield f"- {code(application['path'])}" + (f" ({_text(libraries)})" if libraries else "")
        yield from (f"  - {_text(change)}" for change in application["changes"])
    if told:
        yield ""


def _nginx(found: dict[str, Any], at: Places) -> Iterator[str]:
    yield "## 8. nginx"
    yield ""
    if not found["sites"]:
        yield "No site was found."
        yield ""
        return
    yield (
        "Install the distribution's nginx. The configuration "
        "is written anew; section 11 says what of the old one is not in it."
    )
    yield ""
    acme = quote(f"{at.web_root}/acme")
    yield command(f"mkdir -p /etc/nginx/rescued/tls {acme}")
    yield command("cp nginx/rescued/*.inc /etc/nginx/rescued/")
    yield command("cp nginx/rescued.conf /etc/nginx/conf.d/")
    yield command("nginx -t && systemctl reload nginx")
    yield ""
    if any(site["php"] for site in found["sites"]):
        yield "PHP is expected where it was (php-fpm: set its listen address to the one in the .inc file)."
        yield ""
    encrypted = [site for site in found["sites"] if site["tls_ports"]]
    if encrypted:
        yield "New certificates, when the names lead to the new server (certbot; any other issuer's tool will do):"
        yield ""
        for site in encrypted:
            names = [name for name in site["names"] if "*" not in name and not name.startswith(".")]
            if names:
                wanted = " ".join(f"-d {quote(name)}" for name in names[:50])
                yield command(
                    f"certbot certonly --webroot -w {acme} --cert-name site-{site['number']} {wanted}"
                )
                yield command(
                    f"ln -sfn /etc/letsencrypt/live/site-{site['number']} /etc/nginx/rescued/tls/site-{site['number']}"
                )
            if len(names) < len(site["names"]):
                yield command(
                    f"# site {site['number']} has names with a star: those need the issuer's DNS challenge"
                )
        yield command("cp nginx/rescued-tls.conf /etc/nginx/conf.d/")
        yield command("nginx -t && systemctl reload nginx")
        yield ""
    yield "What each site was:"
    yield ""
    for site in found["sites"]:
        title = ", ".join(code(name) for name in site["names"][:10]) or "no name"
        ports = ", ".join(str(port) for port in [*site["ports"], *site["tls_ports"]] if port not in (80, 443))
        yield f"- site {site['number']}: {title}" + (
            f"; also on port {ports}, which the security group closes" if ports else ""
        )
        if site["applications"]:
            yield f"  - applications behind it: {', '.join(code(a) for a in site['applications'][:20])}"
    yield ""


def _end(made: Sequence[Deployment]) -> Iterator[str]:
    yield "## 9. Look, then let people in"
    yield ""
    yield "- Through the new server's address, before DNS changes: `curl -sI --resolve NAME:80:ADDRESS http://NAME/`."
    if made:
        yield "- `redkeep check` says nothing of severity error or warning."
    yield "- From elsewhere, nothing but 80, 443 and your SSH answers: `nmap -Pn ADDRESS`."
    yield "- Then DNS, then watch CPU, connections to the outside and new cron lines for a week."
    yield (
        "- Last: destroy the helper host, the copied disk and "
        "the old disk; delete the snapshot when nobody needs it as evidence."
    )
    yield ""


def _rotate(found: dict[str, Any]) -> Iterator[str]:
    yield "## 10. Everything that was exposed"
    yield ""
    yield "Whoever was on the server has read these. The values are not shown here."
    yield ""
    for kind, how in ROTATION.items():
        mine = [one for one in found["exposed"] if one["kind"] == kind]
        if mine:
            yield f"### {kind} ({len(mine)})"
            yield ""
            yield how
            yield ""
            yield from (f"- {_where(one)}" for one in mine)
            yield ""
    if not found["exposed"]:
        yield "None was found. That is what was looked for in files of known names; you know of more."
        yield ""


def _where(one: dict[str, str]) -> str:
    return code(one["where"]) + (f": {code(one['what'])}" if one["what"] else "")


def _left_out(found: dict[str, Any]) -> Iterator[str]:
    yield "## 11. What of the old nginx is not in the new one"
    yield ""
    for one in found["left_out"]:
        yield f"- {code(one['site'])}: {code(one['what'])}: {_text(one['why'])}"
    if not found["left_out"]:
        yield "Nothing beyond users, modules, logs and TLS settings, which are the new nginx's own."
    yield ""
    if found["not_looked_at"]:
        yield "## 12. What was not looked at"
        yield ""
        yield from (f"- {_text(line)}" for line in found["not_looked_at"][:100])
