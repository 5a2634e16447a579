"""What machines answer: a Debian with systemd, one that has neither ss nor ip, Alpine, CentOS 7, and nonsense."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.errors import HostError
from redkeep.hosts.facts import KERNEL, Look, parse
from redkeep.model.topology import HostFacts, Listener

DEBIAN = r"""@os
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
@machine
x86_64
0
5aedc0ef-863e-42dd-bda5-72e6deb97307
systemd
@libc
glibc 2.36
@memory
MemTotal:       24682416 kB
SwapTotal:       1000000 kB
SwapFree:         400000 kB
@clock
1795544366.940068775
@address
1: lo    inet 127.0.0.1/8 scope host lo\       valid_lft forever preferred_lft forever
1: lo    inet6 ::1/128 scope host \       valid_lft forever preferred_lft forever
2: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0\       valid_lft forever preferred_lft forever
4: eth0    inet 10.0.0.11/24 brd 10.0.0.255 scope global eth0\       valid_lft forever preferred_lft forever
4: eth0    inet6 2001:db8::11/64 scope global nodad \       valid_lft forever preferred_lft forever
4: eth0    inet6 fe80::fc:ff:fe00:1/64 scope link \       valid_lft forever preferred_lft forever
@route
192.0.2.1 via 10.0.0.1 dev eth0 src 10.0.0.11 uid 0 \    cache
@kernel
/proc/sys/vm/overcommit_memory:0
/proc/sys/vm/swappiness:60
/proc/sys/net/core/somaxconn:4096
/sys/kernel/mm/transparent_hugepage/enabled:always [madvise] never
@writable
/proc/sys/vm/overcommit_memory
/proc/sys/vm/swappiness
/sys/kernel/mm/transparent_hugepage/enabled
@listen
LISTEN 0      511    127.0.0.1:6379 0.0.0.0:* users:(("redis-server",pid=28041,fd=8))
LISTEN 0      128      0.0.0.0:22   0.0.0.0:*
LISTEN 0      4096  127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=1,fd=14))
LISTEN 0      511        [::1]:6379    [::]:* users:(("redis-server",pid=28041,fd=9))
LISTEN 0      5  [fe80::1]%eth0:5353    [::]:*
LISTEN 0      80             *:3306       *:*
@tools
systemctl
nft
bash
@disk
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/vda1         41152736 12345678  26680000      32% /
@files
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  /var/lib/redkeep/main/identity
@present
/var/lib/redkeep/main/6379/data
@set
6379
@foreign
@identity
{"id": "d-1"}
@services
Id=redkeep-main-6379.service
ActiveState=active
SubState=running
UnitFileState=enabled
NeedDaemonReload=no

Id=redkeep-main-6380.service
ActiveState=inactive
SubState=dead
UnitFileState=disabled
NeedDaemonReload=yes

Id=redkeep-main-firewall.service
ActiveState=inactive
SubState=dead
UnitFileState=
NeedDaemonReload=no
"""

ALPINE = """@os
NAME="Alpine Linux"
ID=alpine
VERSION_ID=3.20.1
PRETTY_NAME="Alpine Linux v3.20"
@machine
aarch64
1000
5aedc0ef-863e-42dd-bda5-72e6deb97307
supervise
@libc
musl libc (aarch64)
@memory
MemTotal:        1000000 kB
SwapTotal:             0 kB
SwapFree:              0 kB
@clock
1795544366.%N
@address
@route
@kernel
/proc/sys/vm/overcommit_memory:1
@writable
@listen
@sockets
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 628240 1 0000000000000000
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 474357 1 0000000000000000
   2: 0100007F:18EB 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 474358 1 0000000000000000
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: B80D0120000000000000000011000000:18EC 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   1: 00000000000000000000000000000000:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
@tools
@disk
Filesystem           1024-blocks    Used Available Capacity Mounted on
overlay                 41152736 12345678  26680000  32% /
@files
@present
@set
@foreign
@identity
@services
supervised /home/u/a b/6379
"""

CENTOS = DEBIAN.replace(
    DEBIAN[: DEBIAN.index("@machine")],
    '@os\nNAME="CentOS Linux"\nVERSION="7 (Core)"\nID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n\n',
).replace("glibc 2.36", "glibc 2.17")

ASKED = (1795544366.0, 1795544367.0)


def parsed(text: str) -> HostFacts:
    return parse(text, "h1", asked=ASKED)


def test_debian() -> None:
    facts = parsed(DEBIAN)
    assert (facts.system, facts.system_version, facts.family) == ("debian", "12", "apt")
    assert (facts.architecture, facts.libc, facts.systemd, facts.root) == ("x86_64", "glibc 2.36", True, True)
    assert (facts.memory, facts.disk_free) == (24682416 * 1024, 26680000 * 1024)
    assert facts.clock == pytest.approx(0.44, abs=0.001)
    assert facts.clock_uncertainty == 0.5
    assert facts.addresses == ("10.0.0.11", "2001:db8::11")
    assert facts.outgoing == "10.0.0.11"
    assert facts.kernel == {
        "vm.overcommit_memory": "0",
        "vm.swappiness": "60",
        "net.core.somaxconn": "4096",
        "net.core.somaxconn:read-only": "yes",
        "transparent_hugepage": "madvise",
        "swap_used": str(600000 * 1024),
    }
    assert facts.listeners == (
        Listener("127.0.0.1", 6379, "redis-server", 28041),
        Listener("0.0.0.0", 22),
        Listener("127.0.0.53", 53, "systemd-resolve", 1),
        Listener("::1", 6379, "redis-server", 28041),
        Listener("fe80::1", 5353),
        Listener("*", 3306),
    )
    assert facts.commands == {"systemctl", "nft", "bash"}
    assert list(facts.digests) == ["/var/lib/redkeep/main/identity"]
    assert facts.present == {"/var/lib/redkeep/main/6379/data"}
    assert facts.set_up == {"6379"}
    assert facts.services == {
        "redkeep-main-6379.service": "active",
        "redkeep-main-6380.service": "inactive",
        "redkeep-main-firewall.service": "inactive",
    }
    assert facts.enabled == {"redkeep-main-6379.service"}
    assert facts.identity == '{"id": "d-1"}'
    assert facts.boot_id == "5aedc0ef-863e-42dd-bda5-72e6deb97307"


def test_alpine_without_ip_ss_and_fractions_of_seconds() -> None:
    facts = parsed(ALPINE)
    assert (facts.system, facts.family, facts.libc) == ("alpine", "other", "musl")
    assert (facts.systemd, facts.root) == (False, False)
    assert (facts.addresses, facts.outgoing) == ((), "")
    assert facts.listeners == (
        Listener("127.0.0.1", 6379),
        Listener("0.0.0.0", 22),
        Listener("2001:db8::11", 6380),
        Listener("::", 3306),
    )
    assert (facts.clock, facts.clock_uncertainty) == (0.0, 1.0)
    assert facts.kernel == {
        "vm.overcommit_memory": "1",
        "vm.overcommit_memory:read-only": "yes",
        "swap_used": "0",
    }
    assert facts.services == {"/home/u/a b/6379": "active"}
    assert facts.enabled == {"/home/u/a b/6379"}
    assert facts.identity == ""


def test_centos() -> None:
    facts = parsed(CENTOS)
    assert (facts.system, facts.system_version, facts.family, facts.libc) == (
        "centos",
        "7",
        "dnf",
        "glibc 2.17",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1795544366.940068775", "Tue Nov 24"),
        ("MemTotal:       24682416 kB", "MemTotal: much"),
        ("MemTotal:       24682416 kB\n", ""),
        ("26680000", "?"),
        ("@disk\n", "@disc\n"),
        ("@os\n", "Welcome!\n"),
        ("0.0.0.0:22 ", "nowhere "),
        ("Id=redkeep-main-6380.service\n", ""),
    ],
)
def test_answers_that_make_no_sense(old: str, new: str) -> None:
    assert old in DEBIAN
    with pytest.raises(HostError) as raised:
        parsed(DEBIAN.replace(old, new))
    assert raised.value.where == "h1"


@pytest.mark.parametrize("noise", ["Last login: Tue Nov 24\n", "*** Authorized use only @ACME ***\n\n"])
def test_what_a_login_prints_first_does_not_matter(noise: str) -> None:
    assert parsed(noise + DEBIAN) == parsed(DEBIAN)


def test_an_unknown_kernel_setting_does_not_matter() -> None:
    assert parsed(DEBIAN.replace("@writable", "grep: /proc/x: is odd\n@writable")) == parsed(DEBIAN)


@given(st.text())
def test_garbage(text: str) -> None:
    with pytest.raises(HostError):
        parsed(text)


@given(st.integers(0, len(DEBIAN)), st.text(max_size=20), st.integers(0, 40))
def test_damaged_answers(start: int, inserted: str, removed: int) -> None:
    try:
        parsed(DEBIAN[:start] + inserted + DEBIAN[start + removed :])
    except HostError:
        return


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="hosts are Linux, and this machine is not")
@pytest.mark.parametrize("path", [os.environ.get("PATH", ""), "/bare"])
def test_this_machine(tmp_path: Path, path: str) -> None:
    """The script as it is, in a folder whose name is no single word; and where there is no ss, ip or getconf."""
    base = tmp_path / "a base"
    data = base / "6379" / "data"
    data.mkdir(parents=True)
    (data / "node.conf").write_text("")
    (base / "identity").write_text("{}\n")
    (data / "supervisor.pid").write_text(f"{os.getpid()}\n")
    look = Look(
        str(base),
        files=[f"{base}/identity", f"{base}/none"],
        present=[str(data), f"{data}/nodes.conf"],
        folders=[f"{base}/6379", f"{base}/6380"],
        systemd=False,
    )
    bare = tmp_path / "bin"
    bare.mkdir()
    if path == "/bare":
        for tool in ("uname", "id", "cat", "date", "grep", "df", "sha256sum", "head", "ls", "sed"):
            (bare / tool).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d, tool)).exists()))
        path = str(bare)
    script = look.script().replace(":/usr/sbin:/sbin", "")
    done = subprocess.run(
        ["/bin/sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False, timeout=30
    )
    facts = parse(done.stdout, "here", asked=(0.0, 0.0))
    assert facts.memory > 1024**2
    assert list(facts.digests) == [f"{base}/identity"]
    assert facts.present == {str(data)}
    assert facts.services == {f"{base}/6379": "active"}
    assert facts.set_up == {"6379"}
    assert facts.identity == "{}"
    assert set(KERNEL) & set(facts.kernel)
    assert done.stderr == ""
