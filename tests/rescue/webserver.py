"""Debian's nginx with a planned configuration: in a prefix of its own, and in a network of its own with loopback alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.rescue import disks

_MAIN = """\
pid run/nginx.pid;
error_log logs/error.log warn;
worker_processes 1;
events { worker_connections 64; }
http {
    include mime.types;
    access_log off;
    client_body_temp_path run/body; proxy_temp_path run/proxy; fastcgi_temp_path run/fastcgi;
    uwsgi_temp_path run/uwsgi; scgi_temp_path run/scgi;
    include conf.d/*.conf;
}
"""


def prefix(at: Path) -> Path:
    """What Debian's package has in /etc/nginx, with nothing of this machine's own configuration."""
    disks.need("nginx")
    for directory in ("conf.d", "rescued/tls", "logs", "run"):
        (at / directory).mkdir(parents=True, exist_ok=True)
    for name in ("mime.types", "fastcgi_params", "uwsgi_params"):
        shutil.copy(Path("/etc/nginx") / name, at / name)
    (at / "nginx.conf").write_text(_MAIN)
    return at


def install(plan: Path, at: Path, *, tls: bool) -> None:
    """As REBUILD.md says: the sites into conf.d, what they do beside it, TLS when there are certificates."""
    for file in plan.glob("nginx/rescued/*.inc"):
        shutil.copy(file, at / "rescued")
    for name in ["rescued.conf", *(["rescued-tls.conf"] if tls else [])]:
        if (plan / "nginx" / name).exists():
            shutil.copy(plan / "nginx" / name, at / "conf.d")


def complaints(at: Path) -> str:
    """What ``nginx -t`` has against it; empty where nothing."""
    command = [disks.program("nginx") or "nginx", "-p", f"{at}/", "-c", "nginx.conf", "-t", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def answers(at: Path, *requests: tuple[str, ...]) -> list[str]:
    """Serves as an unprivileged user, in a network namespace, and asks with curl; each answer ends in its status.

    nginx ends with the namespace's shell.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network of its own and another user")
    disks.need("nginx", "curl", "unshare", "setpriv", "ip", "sysctl")
    for path in (at / "logs", at / "run"):
        shutil.rmtree(path)  # what nginx -t left there is root's
        path.mkdir()
        shutil.chown(path, "nobody", "nogroup")
    curls = "\n".join(
        "curl -sk --max-time 20 -w '\\n%{http_code}\\n' "
        + " ".join(f"'{word}'" for word in request)
        + "; echo =="
        for request in requests
    )
    script = f"""
set -eu
ip link set lo up
sysctl -qw net.ipv4.ip_unprivileged_port_start=0
setpriv --reuid=nobody --regid=nogroup --clear-groups --no-new-privs \
    nginx -p '{at}/' -c nginx.conf -g 'daemon off;' &
trap 'kill $!; wait' EXIT
for i in $(seq 100); do curl -s --max-time 5 -o /dev/null http://127.0.0.1/ && break; sleep 0.1; done
{curls}
"""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr + (at / "logs/error.log").read_text()
    return [part.strip() for part in done.stdout.split("==\n")[:-1]]
