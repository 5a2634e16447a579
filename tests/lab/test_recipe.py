"""A blog post's recipe: the doctor names each trap, mends what is mendable, and then a failover works from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from redkeep.model.finding import Finding
from tests.cli import Redkeep

from .blogpost import SENTINEL_HOSTS, WEAK, BlogPost
from .conftest import LabFactory
from .site import Site, eventually

pytestmark = pytest.mark.long

HOSTS = ("a11", "a12", "a13", "b21")
ENGINES = [
    pytest.param(("bookworm", "redis"), id="redis-7.0"),
    pytest.param(("trixie", "valkey"), id="valkey-8.1"),
]
CLEAR = "--allow-clear-text"


@dataclass
class Case:
    """The recipe, and a person at the command line on the internet."""

    post: BlogPost
    run: Redkeep

    def check(self, *arguments: str) -> list[Finding]:
        return [Finding(**f) for f in self.run("check", *arguments, CLEAR, "--json").json["findings"]]

    def fix(self, *targets: str) -> dict[str, Any]:
        told = self.run("check", *targets, CLEAR, "--fix", "--yes", "--json", timeout=240)
        document = dict(told.json)
        assert "error" not in document, told.everything
        assert WEAK not in told.stdout + told.stderr
        return document

    @property
    def shop(self) -> list[str]:
        return [*self.post.servers(), *self.post.sentinels()]


@pytest.fixture(scope="module", params=ENGINES)
def case(
    request: pytest.FixtureRequest, lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    distribution, flavor = request.param
    lab = lab_factory(dict.fromkeys(HOSTS, distribution), layers=[flavor])
    post = BlogPost(lab, flavor)
    post.follow()
    yield Case(post, Site.at(lab, tmp_path_factory.mktemp("recipe")).run)
    lab.close()


def of(found: list[Finding], rule: str, *words: str) -> Finding:
    """The one finding of this rule that has these words in its subject or evidence."""
    matching = [f for f in found if f.rule == rule and all(w in f"{f.subject} {f.evidence}" for w in words)]
    assert len(matching) == 1, "\n".join(f"{f.rule} {f.subject}: {f.evidence}" for f in found)
    return matching[0]


def test_from_one_address_the_sentinels_that_greet_with_loopback_are_found(case: Case) -> None:
    found = case.check(case.post.servers()[0])
    of(
        found,
        "announce-loopback",
        "198.51.100.11:26379",
        "127.0.0.1:26379 is handed out",
        "__sentinel__:hello",
    )
    watched = of(
        found, "announce-loopback", "127.0.0.1:6379 is handed out", "GET-MASTER-ADDR-BY-NAME mymaster"
    )
    assert watched.subject == "198.51.100.11:6379"
    unknown = of(found, "not-checked", "10.77.0.12:6379", "unreachable")
    assert "name that as well" in unknown.fix


def test_each_trap_of_the_sentinels_is_named(case: Case) -> None:
    told = case.run("check", *case.shop, CLEAR)
    assert told.status == 3
    assert ": 3 servers, 3 Sentinels" in told.stdout
    assert max(map(len, told.stdout.splitlines()[1:])) <= 80 or "redis-cli" in told.stdout
    found = case.check(*case.shop)
    rejoin = of(found, "primary-cannot-rejoin", "198.51.100.11:6379", "masterauth is not set")
    assert "198.51.100.12:6379" in rejoin.evidence
    of(found, "announce-loopback", "127.0.0.1:6379 is handed out (SENTINEL GET-MASTER-ADDR-BY-NAME")
    of(found, "announce-unroutable", "198.51.100.12:6379", "10.77.0.12:6379", "SENTINEL REPLICAS")
    assert "198.51.100.21:6379" in of(found, "weak-password", "most common ones").subject
    for rule in ("sentinel-ghost", "protected-mode-off", "public-exposure", "maxmemory-unset", "no-password"):
        assert [f for f in found if f.rule == rule], rule
    opened = next(f for f in found if f.rule == "no-password")
    assert opened.subject.endswith(":26379")
    assert f"/etc/{case.post.flavor}/sentinel.conf" in opened.fix


def test_each_trap_of_the_cluster_is_named(case: Case) -> None:
    targets = case.post.cluster()
    found = case.check(*targets)
    unreachable = [f for f in found if f.rule == "announce-unroutable"]
    assert {f.subject for f in unreachable} == {t.rpartition("@")[2] for t in targets}
    assert all("10.77.0." in f.evidence and "from here: " in f.evidence for f in unreachable)
    assert len([f for f in found if f.rule == "bus-exposed"]) == len(targets)
    of(found, "weak-password", "most common ones")


def test_what_is_mendable_is_mended_and_twice_is_once(case: Case) -> None:
    """Of the host whose login is given, the kernel as well."""
    lab, overcommit = case.post.lab, "/proc/sys/vm/overcommit_memory"
    lab.exec("a11", f"echo 0 > {overcommit}")
    fixed = case.fix(*case.shop, "--ssh", f"root@{lab['a11'].public}")
    assert fixed["fix"]["changed"]
    assert lab.exec("a11", f"cat {overcommit} /etc/sysctl.d/90-redkeep-check.conf").stdout.split()[0] == "1"
    rules = {f["rule"] for f in fixed["findings"]}
    mended = {
        "announce-loopback",
        "announce-unroutable",
        "announce-differs",
        "announce-shared",
        "sentinel-ghost",
    }
    others = {"primary-cannot-rejoin", "protected-mode-off", "sentinels-disagree", "overcommit"}
    assert not rules & (mended | others), fixed
    fixed = case.fix(*case.post.cluster())
    assert fixed["fix"]["changed"]
    rules = {f["rule"] for f in fixed["findings"]}
    assert not rules & {"announce-unroutable", "announce-differs", "protected-mode-off"}, fixed
    for targets in (case.shop, case.post.cluster()):
        again = case.fix(*targets)
        assert not again["fix"]["changed"], again["fix"]
        assert not {f["rule"] for f in again["findings"]} & mended


def test_the_password_is_changed_by_the_printed_commands(case: Case) -> None:
    """As they stand, from a shell on the internet; clients go on meanwhile."""
    post = case.post
    shop, cluster = case.check(*case.shop), case.check(*post.cluster())
    fixes = [of(found, "weak-password").fix for found in (shop, cluster)]
    parts = [
        part for fix in fixes for part in fix.split("; then give it to the applications, and in the end: ")
    ]
    assert len(parts) == 4, fixes
    # the same new password for both, so that one client's settings do
    script = "\n".join(p.replace("NEW=$(openssl rand -hex 16); ", "") for p in parts)
    new = os.urandom(16).hex()
    environment = {**os.environ, "REDISCLI_AUTH": WEAK, "NEW": new}
    done = post.lab.run(["bash", "-c", f"set -o pipefail; {script}"], env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERR" not in done.stdout
    post.password = new
    assert not [f for t in (case.shop, post.cluster()) for f in case.check(*t) if f.rule == "weak-password"]


def test_the_file_of_what_runs(case: Case) -> None:
    """``status`` and ``check`` work with it; ``apply`` says what is in its way."""
    run, secret = case.run, {"REDKEEP_PASSWORD": case.post.password}
    run("init", "--from", case.post.servers()[0], CLEAR, "--trust-discovered").ok()
    text = run.file.read_text()
    assert "mode: sentinel" in text
    assert all(f"public: {case.post.lab[n].public}" in text for n in SENTINEL_HOSTS)
    assert case.post.password not in text
    status = run("status", CLEAR, "--json", env=secret).ok().json
    assert (status["state"], len(status["nodes"])) == ("ok", 6)
    run("status", env=secret).error(4, "in clear text over a public address")
    checked = run("check", CLEAR, "--json", env=secret)
    assert {f["rule"] for f in checked.json["findings"] if f["severity"] == "error"} == {"no-password"}
    run("apply", "--yes", env=secret).error(4, "Redkeep did not make this deployment")


def test_a_failover_works_from_outside_and_the_old_primaries_rejoin(case: Case) -> None:
    """One power cut takes the primary that Sentinels watch, and a primary of the Cluster."""
    post, lab = case.post, case.post.lab
    with lab.inside("cli"):
        write(eventually(post.client), "before")
        write(eventually(post.cluster_client), "before")
        lab.power_cut("a11")
        try:
            eventually(lambda: write(post.client(), "during"), 90)
            eventually(lambda: write(post.cluster_client(), "during"), 90)
        finally:
            lab.power_on("a11")
        assert post.has_rejoined("a11", 6379)
        assert post.has_rejoined("a11", 7000)
        for client in (eventually(post.client), eventually(post.cluster_client)):
            assert all(client.get(f"during:{i}") == str(i) for i in range(100))
    errors = {f.rule for f in case.check(*case.shop) if f.severity == "error"}
    assert errors <= {"no-password"}


def write(client: Any, prefix: str) -> None:
    for i in range(100):
        client.set(f"{prefix}:{i}", i)
