"""What can be wrong with an SSH session, each as three lines: what, where, what to do next."""

from __future__ import annotations

import os
import socket

from redkeep.errors import HostUnreachable


def key_changed(host: str, label: str, known: set[str], found: set[str]) -> HostUnreachable:
    return HostUnreachable(
        f"the SSH host key of {host} has changed: somebody may be in between, or the machine was installed anew",
        where=f"{label}: expected {' or '.join(sorted(known))}, offered {' and '.join(sorted(found))}",
        next=f"compare with the cloud console; if the new key is right, correct the fingerprint in the deployment "
        f"file, or forget the old key with: ssh-keygen -R '{label}' (also with -f .redkeep/known_hosts)",
    )


def key_unknown(host: str, label: str, found: str) -> HostUnreachable:
    return HostUnreachable(
        f"the SSH host key of {host} is not known, and nobody accepted it",
        where=f"{label}: {found}",
        next="accept it when asked, log in once with ssh, or put it into the deployment file as fingerprint:",
    )


def lost(host: str, login: str, error: Exception | None) -> HostUnreachable:
    reason = str(error).strip() if error else "it closed the connection"
    return HostUnreachable(
        f"the SSH session with {host} was lost: {reason or type(error).__name__}",
        where=f"host {host} ({login})",
        next="look whether the host is up and reachable, then run it again: it goes on where it stopped",
    )


def no_sudo(host: str, user: str, output: str) -> HostUnreachable:
    if "not found" in output:
        what = f"{user} on {host} is not root, and there is no sudo"
    elif "password" in output:
        what = f"sudo asks {user} on {host} for a password"
    else:
        what = f"{user} on {host} may not use sudo: {(output.strip() or 'refused').splitlines()[-1]}"
    return HostUnreachable(
        what,
        where=f"host {host}",
        next=f"log in as root, or allow it in /etc/sudoers.d: {user} ALL=(ALL) NOPASSWD: ALL",
    )


def login_refused(host: str, login: str) -> HostUnreachable:
    return HostUnreachable(
        f"{host} does not accept this login: no key of ours fits",
        where=f"host {host} ({login})",
        next="check the user's name, put your public key there (ssh-copy-id), or load it: ssh-add",
    )


def key_unusable(host: str, login: str, reason: str) -> HostUnreachable:
    return HostUnreachable(
        f"a private key for {host} could not be used: {reason}",
        where=f"host {host} ({login})",
        next="load it into ssh-agent (ssh-add), which asks for its passphrase",
    )


def no_session(host: str, login: str, error: Exception, limit: float) -> HostUnreachable:
    """From the error of a connection that could not be made within ``limit`` seconds."""
    text = str(error).strip() or type(error).__name__
    match error:
        case TimeoutError():
            what = f"{host} did not answer in time"
            advice = "is it up, and does its security group let your address in on the SSH port?"
        case socket.gaierror():
            what = f"the name of {host} could not be resolved"
            advice = "check the ssh address in the deployment file, or the alias in ~/.ssh/config"
        case _ if isinstance(error, ConnectionRefusedError) or "refused" in text.lower():
            what = f"{host} refuses SSH connections: nothing listens on that port"
            advice = "check the port, and that sshd runs there"
        case OSError():
            what = f"no way to {host}: {os.strerror(error.errno) if error.errno else text}"
            advice = "check the address, and your own network"
        case _:
            what = f"no SSH session with {host}: {text}"
            advice = "try the same with: ssh -v"
    return HostUnreachable(what, where=f"host {host} ({login})", next=advice)
