"""Two clouds and an internet, as network namespaces.

Ports are routed with proxy ARP, not bridged, so that every packet, within a cloud too, crosses the router's
forward hook: that is where the security group is, and the faults. Each host has a private address and a 1:1
public one that only the router knows, exactly as an instance of a cloud sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from .errors import output_of
from .facts import (
    CLIENT,
    CLIENT_ADDRESS,
    INTERNET,
    PACKAGE_SERVER,
    PRIVATE_NETS,
    ROUTER_ADDRESSES,
    ROUTERS,
    Cloud,
    Host,
)
from .namespaces import within_lab

_SERVICES = (
    range(6379, 6391),
    range(7000, 7011),
    range(16379, 16391),
    range(17000, 17011),
    range(26379, 26385),
)
OPEN_PORTS = (22, *chain.from_iterable(_SERVICES))
"""What the security group lets in from the internet unless a test says otherwise."""


class Network:
    """The wires, routers and addresses of one lab."""

    def __init__(self, keeper: int, hosts: Mapping[str, Host]) -> None:
        self._keeper = keeper
        self._hosts = hosts

    def build(self) -> None:
        """Make everything but the hosts' own namespaces, which come and go with their power."""
        self._make(INTERNET, *ROUTERS.values(), CLIENT)
        bridge = ["link add br0 type bridge", "link set br0 up", f"address add {PACKAGE_SERVER}/24 dev br0"]
        self.ip(INTERNET, bridge)
        members = {ROUTERS[cloud]: ROUTER_ADDRESSES[cloud] for cloud in ROUTERS}
        for name, address in {CLIENT: CLIENT_ADDRESS, **members}.items():
            wire = f"link add to-{name} type veth peer name wan netns {name}"
            self.ip(INTERNET, [wire, f"link set to-{name} master br0 up"])
            self.ip(name, [f"address add {address}/24 dev wan", "link set wan up"])
        for cloud in ROUTERS:
            self._build_router(cloud, [host for host in self._hosts.values() if host.cloud == cloud])

    def plug_in(self, host: Host) -> None:
        """Give a host a fresh network namespace: nothing of an earlier life, such as a retransmitting socket."""
        router, gateway = ROUTERS[host.cloud], f"{PRIVATE_NETS[host.cloud]}.1"
        port = f"v{host.name}"
        script = f"""
ip -n {router} link delete {port} 2>/dev/null
ip netns delete {host.name} 2>/dev/null
set -e
ip netns add {host.name}
ip -n {router} link add {port} type veth peer name eth0 netns {host.name}
"""
        output_of(within_lab(self._keeper, "sh", "-c", script))
        self.ip(
            host.name,
            [
                "link set lo up",
                f"address add {host.private}/24 dev eth0",
                "link set eth0 up",
                f"route add default via {gateway}",
            ],
        )
        self.sysctl(router, {f"net.ipv4.neigh.{port}.proxy_delay": 0})
        self.ip(router, [f"link set {port} up", f"route add {host.private}/32 dev {port} src {gateway}"])

    def ip(self, name: str, commands: Iterable[str]) -> None:
        """Run iproute2 commands in a namespace, as one process."""
        argv = within_lab(self._keeper, "ip", "-n", name, "-batch", "-")
        output_of(argv, stdin="\n".join(commands) + "\n")

    def nft(self, name: str, commands: str) -> None:
        """Run nftables commands in a namespace, as one transaction."""
        argv = within_lab(self._keeper, "ip", "netns", "exec", name, "nft", "-f", "-")
        output_of(argv, stdin=commands)

    def sysctl(self, name: str, values: Mapping[str, int]) -> None:
        """Set kernel parameters of a namespace."""
        settings = [f"{key}={value}" for key, value in values.items()]
        output_of(within_lab(self._keeper, "ip", "netns", "exec", name, "sysctl", "-qw", *settings))

    def _make(self, *names: str) -> None:
        script = "set -e; for name; do ip netns add $name; ip -n $name link set lo up; done"
        output_of(within_lab(self._keeper, "sh", "-c", script, "sh", *names))

    def _build_router(self, cloud: Cloud, hosts: list[Host]) -> None:
        router, net = ROUTERS[cloud], PRIVATE_NETS[cloud]
        self.sysctl(
            router,
            {
                "net.ipv4.ip_forward": 1,
                "net.ipv4.conf.all.send_redirects": 0,
                "net.ipv4.conf.default.send_redirects": 0,
                "net.ipv4.conf.default.proxy_arp": 1,
            },
        )
        public = [f"address add {host.public}/32 dev wan" for host in hosts]
        self.ip(router, [f"address add {net}.1/32 dev lo", f"route add unreachable {net}.0/24", *public])
        self.nft(router, _ruleset(net, hosts))


def _ruleset(net: str, hosts: list[Host]) -> str:
    """The router's rules: 1:1 NAT, then faults, then the security group.

    The hairpin rule gives a host that speaks to a public address of its own cloud its public source address,
    as clouds do. The faults come before `established`, so that they also hit connections that exist.
    """
    add = "add element inet lab"
    inward = "".join(f"{add} inward {{ {host.public} : {host.private} }}\n" for host in hosts)
    outward = "".join(f"{add} outward {{ {host.private} : {host.public} }}\n" for host in hosts)
    ports = ", ".join(map(str, OPEN_PORTS))
    return f"""
table inet lab {{
  map inward {{ type ipv4_addr : ipv4_addr; }}
  map outward {{ type ipv4_addr : ipv4_addr; }}
  set open_ports {{ type inet_service; elements = {{ {ports} }}; }}
  set closed_ports {{ type ipv4_addr . inet_service; }}
  set cut {{ type ipv4_addr; }}
  set cut_pairs {{ type ipv4_addr . ipv4_addr; }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    dnat ip to ip daddr map @inward
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname "wan" snat ip to ip saddr map @outward
    ct status dnat ip saddr {net}.0/24 snat ip to ip saddr map @outward
  }}
  chain loss {{ }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ip saddr @cut drop
    ip daddr @cut drop
    ip saddr . ip daddr @cut_pairs drop
    jump loss
    ct state established,related accept
    ct status dnat ip daddr . tcp dport @closed_ports drop
    ct status dnat tcp dport @open_ports accept
    ct status dnat icmp type echo-request accept
    iifname "v*" oifname "wan" accept
    iifname "v*" oifname "v*" ct status & dnat == 0 accept
  }}
}}
{inward}{outward}"""
