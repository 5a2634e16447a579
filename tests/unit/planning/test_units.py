"""Units and what the kernel is told, as systemd itself judges them where it is at hand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from redkeep.planning.hostfiles.layout import Layout
from redkeep.planning.hostfiles.units import (
    KERNEL_WANTED,
    SOMAXCONN,
    TMPFILES,
    firewall_unit,
    node_unit,
    sysctl,
    table,
)

LAYOUT = Layout("/var/lib/redkeep/shop-1", "shop-1")
SERVER, SENTINEL = LAYOUT.node(6379, sentinel=False), LAYOUT.node(26379, sentinel=True)


def options(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_a_server() -> None:
    found = options(node_unit(LAYOUT, SERVER, "/usr/bin/redis-server", "Redis server h1:6379 of shop-1"))
    assert found["ExecStart"] == f"/usr/bin/redis-server {SERVER.own} --include {SERVER.managed}"
    assert found["ExecStartPre"] == f"+{LAYOUT.gate} {SERVER.folder}"
    assert found["ReadWritePaths"] == found["WorkingDirectory"] == SERVER.data
    assert (found["User"], found["UMask"], found["Restart"]) == ("redkeep", "0077", "always")
    assert found["TimeoutStartSec"] == "infinity", "the gate waits for peers as long as it takes"
    assert int(found["LimitNOFILE"]) >= 10_032


def test_a_sentinel_has_no_gate() -> None:
    found = options(node_unit(LAYOUT, SENTINEL, "/usr/bin/valkey-server", "Sentinel"))
    assert found["ExecStart"] == f"/usr/bin/valkey-server {SENTINEL.own} --sentinel"
    assert "ExecStartPre" not in found


def test_units_of_nodes_and_deployments_do_not_meet() -> None:
    units = [
        Layout("/b", name).node(port, sentinel=s).unit
        for name in ("a", "b")
        for port in (1, 2)
        for s in (True, False)
    ]
    assert len(set(units)) == len(units)
    assert Layout("/b", "a").firewall_unit not in units


def test_the_firewall() -> None:
    text = firewall_unit(LAYOUT, "/sbin/nft")
    assert options(text)["ExecStart"] == f"/sbin/nft -f {LAYOUT.firewall}"
    assert options(text)["ExecStop"] == "/sbin/nft delete table inet redkeep_shop_1"
    assert "network-pre.target" in options(text)["Before"]
    assert table("shop-1") == "redkeep_shop_1"


@pytest.mark.parametrize("backlog", [0, 128, 65535])
def test_what_is_written_is_what_is_wanted(backlog: int) -> None:
    """A value that we write and do not want ourselves would be written at every run."""
    written = dict(line.split(" = ") for line in sysctl(backlog).splitlines() if " = " in line)
    assert written["vm.overcommit_memory"] in KERNEL_WANTED["vm.overcommit_memory"]
    assert int(written["net.core.somaxconn"]) == max(SOMAXCONN, backlog), "never less than a host has"
    assert TMPFILES.split()[-1] in KERNEL_WANTED["transparent_hugepage"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("kind", ["server", "sentinel", "firewall"])
def test_systemd_understands_them(kind: str, tmp_path: Path) -> None:
    server = shutil.which("true") or "/bin/true"
    text = {
        "server": node_unit(LAYOUT, SERVER, server, "Redis"),
        "sentinel": node_unit(LAYOUT, SENTINEL, server, "Sentinel"),
        "firewall": firewall_unit(LAYOUT, server),
    }[kind]
    unit = tmp_path / "redkeep-test.service"
    unit.write_text("\n".join(line for line in text.splitlines() if not line.startswith("ExecStartPre=")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    about_us = [line for line in done.stderr.splitlines() if "redkeep-test" in line and "Unknown" in line]
    assert about_us == []


def test_a_host_with_a_longer_backlog_keeps_it() -> None:
    assert "net.core.somaxconn = 65535" in sysctl(65535)
