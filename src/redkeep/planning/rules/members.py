"""Is the cluster whole? Its nodes: who is down, half forgotten, or not of this Cluster at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from redkeep.model.checkup import Checkup, Node
from redkeep.model.topology import ClusterView
from redkeep.planning.rules.clusterviews import Whole, across, by_group, tool, wholes
from redkeep.planning.rules.registry import Found, rule
from redkeep.planning.rules.words import cli, listed

#: Flags of lines that stand for nobody who could be asked.
_LEFTOVER = frozenset({"handshake", "noaddr"})


@rule("node-failing", "error", needs=("cluster",))
def node_failing(checkup: Checkup) -> Iterator[Found]:
    for whole in wholes(checkup):
        if not whole.marks & {"fail", "fail?"}:
            continue
        marked: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = defaultdict(list)
        for node_id, lines in whole.lines.items():
            flags = {
                flag: tuple(
                    node.name for node, line in lines if flag in line.flags and "noaddr" not in line.flags
                )
                for flag in ("fail", "fail?")
            }
            if any(flags.values()):
                marked[tuple((flag, by) for flag, by in flags.items() if by)].append(node_id)
        for key, ids in marked.items():
            told = "; ".join(f"marked {flag} by {listed(by)}" for flag, by in key)
            up = [name for name in (_answers(whole, node_id) for node_id in ids) if name]
            yield Found(
                listed(whole.name(i) for i in ids),
                f"{told} (CLUSTER NODES)" + (f"; {listed(up)} answered here" if up else ""),
                "Others get no answer from it within the node timeout (fail?), or most primaries agree on that (fail). Its "
                "replica takes over if it has one, else its slots are down.",
                "open its bus port to all nodes: it is up, and others do not hear it"
                if up
                else f"start it, it joins again by itself; if it is gone for good: "
                f"{across(checkup, whole.members[0][0], 'call', 'CLUSTER', 'FORGET', ids[0])}",
            )


def _answers(whole: Whole, node_id: str) -> str:
    return whole.name(node_id) if node_id in whole.ids else ""


@rule("node-stale", "warning", needs=("cluster",))
def node_stale(checkup: Checkup) -> Iterator[Found]:
    for whole in wholes(checkup):
        yield from _leftovers(checkup, whole)
        yield from _forgotten(checkup, whole)


def _leftovers(checkup: Checkup, whole: Whole) -> Iterator[Found]:
    """In handshake (under an ID that changes with every attempt), or without address."""
    for flag, words in (("handshake", "in handshake"), ("noaddr", "without address")):
        found: dict[str, list[Node]] = defaultdict(list)
        for node_id, lines in whole.lines.items() if flag in whole.marks else ():
            for node, line in lines:
                if flag in line.flags:
                    found[str(line.address) if flag == "handshake" else node_id].append(node)
        for holders, keys in by_group(found).items():
            who = keys[0] if flag == "noaddr" else "ID"
            forget = across(checkup, whole.members[0][0], "call", "CLUSTER", "FORGET", who)
            yield Found(
                listed(keys),
                f"{words} for {listed(holders)} (CLUSTER NODES)",
                "It is a leftover, or a node whose bus does not answer where it should be. It counts for nothing, and may "
                "come back at a bad moment.",
                f"open its bus port, or drop it everywhere within a minute: {forget}",
            )


def _forgotten(checkup: Checkup, whole: Whole) -> Iterator[Found]:
    total = len(whole.members)
    lacking: dict[str, list[Node]] = {}
    for node_id, said in whole.said.items():
        if sum(len(nodes) for _, nodes in said) == total or all(line.flags & _LEFTOVER for line, _ in said):
            continue
        knowing = {node.name for _, nodes in said for node in nodes}
        lacking[node_id] = [node for node, _ in whole.members if node.name not in knowing]
    for holders, ids in by_group({i: nodes for i, nodes in lacking.items() if nodes}).items():
        alive = [i for i in ids if i in whole.ids]
        back = next(n for n, _ in whole.members if n.name == holders[0])
        yield Found(
            listed(whole.name(i) for i in ids),
            f"not known to {listed(holders)}, known to others of {total} (CLUSTER NODES)",
            "Gossip spreads every known node, so one that only some have forgotten returns to all. Meanwhile those who do "
            "not know it send no client there, and do not see it fail.",
            _meet(checkup, whole, back, alive[0])
            if alive
            else across(checkup, back, "call", "CLUSTER", "FORGET", ids[0]) + " (within a minute, on all)",
        )


def _meet(checkup: Checkup, whole: Whole, node: Node, other: str) -> str:
    line = next(line for _, line in whole.lines[other] if line.address.host or len(whole.lines[other]) == 1)
    host = line.address.host or whole.ids[other][0].address.host
    return cli(checkup, node, "CLUSTER", "MEET", host, str(line.address.port), str(line.bus_port))


@rule("foreign-node", "error", needs=("cluster",))
def foreign_node(checkup: Checkup) -> Iterator[Found]:
    every = wholes(checkup)
    for whole in every:
        yield from _copied(checkup, whole)
        yield from _not_in_file(checkup, whole)
    yield from _elsewhere(checkup, every)


def _copied(checkup: Checkup, whole: Whole) -> Iterator[Found]:
    for node_id, nodes in whole.ids.items():
        if len({n.seen.run_id for n in nodes if n.seen}) > 1:
            first, last = nodes[0], nodes[-1]
            yield Found(
                listed(nodes),
                f"the same node ID {node_id[:12]} (CLUSTER NODES) with different run IDs (INFO server)",
                "One uses a nodes.conf that was copied from the other. Both take turns at being one node: peers and "
                "clients are sent to one or the other, each with data of its own.",
                f"stop the copy, here {last} unless you know better, delete its nodes.conf and data, start it, and add it "
                f"as a new node: {tool(checkup, first)} add-node {last.address} {first.address}",
            )


def _not_in_file(checkup: Checkup, whole: Whole) -> Iterator[Found]:
    """The deployment file says who belongs."""
    if checkup.spec is None:
        return
    places = _places(checkup)
    foreign: dict[str, list[Node]] = {}
    for node_id, lines in whole.lines.items():
        gone = all(line.flags & _LEFTOVER for _, line in lines)
        known = any((line.address.host, line.address.port) in places for _, line in lines)
        if node_id not in whole.ids and not gone and not known:
            foreign[node_id] = [node for node, _ in lines]
    for holders, ids in by_group(foreign).items():
        more = f", and the same for {len(ids) - 1} more" if len(ids) > 1 else ""
        yield Found(
            listed(whole.name(i) for i in ids),
            f"known to {listed(holders)} (CLUSTER NODES), and not in the deployment file",
            "Clusters that have met are one: by their epochs, slots of the one go to the other, and replicas of the one "
            "follow primaries of the other.",
            "close the bus between them; then, within a minute, on every node of this Cluster: CLUSTER FORGET "
            f"{ids[0]}{more}",
        )


def _places(checkup: Checkup) -> set[tuple[str, int]]:
    """Where nodes of the deployment file may say that they are."""
    found = {(n.address.host, n.address.port) for n in checkup.nodes}
    for host in checkup.spec.hosts if checkup.spec else ():
        ports = [n.address.port for n in checkup.nodes if n.host == host.name]
        found |= {(a, port) for a in (host.private, host.public) if a for port in ports}
    return found


def _elsewhere(checkup: Checkup, every: list[Whole]) -> Iterator[Found]:
    """A node that was looked for by its address or by the deployment file, and is of another Cluster."""
    if len(every) < 2:
        return
    home = every[0]
    told = {line.address: node_id for node_id, lines in home.lines.items() for _, line in lines}
    for whole in every[1:]:
        for node, view in whole.members:
            wanted = told.get(node.address, "")
            # where the user named both, two Clusters are no fault
            if wanted or checkup.spec is not None:
                yield _of_another(checkup, home, node, view, wanted)


def _of_another(checkup: Checkup, home: Whole, node: Node, view: ClusterView, wanted: str) -> Found:
    others = len(view.nodes) - 1
    knows = f"it knows {others} other nodes, none of this Cluster" if others else "it knows nobody"
    expected = f", where {listed(n for n, _ in home.members)} expect {wanted[:12]}" if wanted else ""
    somebody = home.members[0][0].address
    join = cli(checkup, node, "CLUSTER", "MEET", somebody.host, str(somebody.port))
    return Found(
        node.name,
        f"its node ID is {view.my_id[:12]} (CLUSTER NODES){expected}; {knows}",
        "It belongs to another Cluster, or has lost its nodes.conf and is nobody any more. Clients that are sent there "
        "meet the wrong data, or none.",
        "redkeep apply lets it join again"
        if checkup.spec
        else f"if it is one of yours: {join}; else on every node of this Cluster: CLUSTER FORGET {wanted}",
    )
