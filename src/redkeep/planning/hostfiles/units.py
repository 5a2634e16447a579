"""systemd units, kernel settings and firewall units, as text."""

from __future__ import annotations

from redkeep.planning.hostfiles.layout import SERVICE_USER, Layout, NodePaths

#: A server needs a descriptor for each client and some of its own; the engines ask for maxclients (10,000) + 32.
OPEN_FILES = 65536

#: The kernel's own default since 5.4; a server asks for 511.
SOMAXCONN = 4096


def sysctl(backlog: int) -> str:
    """``backlog``: what the host has now, which is never made less."""
    return f"""\
# Written by Redkeep. A fork for a snapshot must not fail because memory looks short; connections may come in bursts.
vm.overcommit_memory = 1
net.core.somaxconn = {max(backlog, SOMAXCONN)}
"""


TMPFILES = """\
# Written by Redkeep. Huge pages make each write after a fork copy 2 MiB: latency and memory.
w- /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise
"""


def logrotate(layout: Layout) -> str:
    """A server opens its log anew for each line, so that a renamed one is simply followed by the next."""
    return f"""\
# Written by Redkeep.
{layout.base}/*/data/server.log {{
    su {SERVICE_USER} {SERVICE_USER}
    size 10M
    rotate 4
    missingok
    notifempty
    compress
}}
"""


#: What the kernel should say, for what we write above: name -> values that are fine.
KERNEL_WANTED = {
    "vm.overcommit_memory": ("1",),
    "transparent_hugepage": ("madvise", "never"),
}


def node_unit(layout: Layout, paths: NodePaths, server: str, title: str, *, watched: bool = False) -> str:
    """A server's unit: started behind the gate, stopped after handing over, restarted when it dies, locked in as far as it
    can be."""
    command = (
        f"{server} {paths.own} --sentinel"
        if paths.sentinel
        else f"{server} {paths.own} --include {paths.managed}"
    )
    gate = "" if paths.sentinel else f"ExecStartPre=+{layout.gate} {paths.folder}\n"
    after = f"ExecStartPost=+/bin/sh -c '{layout.gate} --after {paths.folder} &'\n" if watched else ""
    leave = "" if paths.sentinel else f"ExecStop=-+{layout.leave} {paths.folder}\n"
    crashed = "" if paths.sentinel else f"ExecStopPost=-+{layout.crashed} {paths.folder}\n"
    return f"""\
# Written by Redkeep.
[Unit]
Description={title}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=simple
User={SERVICE_USER}
Group={SERVICE_USER}
UMask=0077
WorkingDirectory={paths.data}
{gate}ExecStart={command}
{after}{leave}{crashed}Restart=always
RestartSec=1
# The gate may have to wait for its peers; a server may have much to load.
TimeoutStartSec=infinity
TimeoutStopSec=120
LimitNOFILE={OPEN_FILES}
OOMScoreAdjust=-500
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths={paths.data}
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
LockPersonality=true
CapabilityBoundingSet=
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def firewall_unit(layout: Layout, nft: str = "/usr/sbin/nft") -> str:
    """Loads the deployment's own table at boot, before any server listens."""
    return f"""\
# Written by Redkeep.
[Unit]
Description=Who may connect to {layout.name} (Redkeep)
Before=network-pre.target
Wants=network-pre.target
DefaultDependencies=no
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} -f {layout.firewall}
ExecReload={nft} -f {layout.firewall}
ExecStop={nft} delete table inet {table(layout.name)}

[Install]
WantedBy=multi-user.target
"""


def table(name: str) -> str:
    """The nftables table of a deployment."""
    return "redkeep_" + name.replace("-", "_")
