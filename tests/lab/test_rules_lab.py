"""Rules about hosts and restarts, on hosts with systemd: a deployment of Redkeep, and Debian's own service beside it.

All of them share one lab, and leave it as they found it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redkeep.model.finding import Finding

from . import Lab
from .conftest import LabFactory
from .doctoring import examined
from .site import Site, eventually, unit

HOSTS = ("a11", "a12", "a13")
PASSWORD = "a-long-password-of-the-lab-0123456789"
CONFIG = "/etc/redis/redis.conf"


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Applied on port 6385, beside Debian's server on 6379."""
    lab = lab_factory(dict.fromkeys(HOSTS, "bookworm"), layers=["redis"])
    site = Site.at(lab, tmp_path_factory.mktemp("rules"))
    site.write("mode: sentinel\nport: 6385\nsentinel_port: 26381\nmaxmemory: 64mb\n")
    site.apply()
    return site


def findings(site: Site) -> list[Finding]:
    return [Finding(**f) for f in site.run("check", "--json").json["findings"]]


def of(found: list[Finding], rule: str) -> list[Finding]:
    return [f for f in found if f.rule == rule]


def only(found: list[Finding], rule: str) -> Finding:
    matching = of(found, rule)
    assert len(matching) == 1, "\n".join(map(str, found))
    assert all((matching[0].subject, matching[0].evidence, matching[0].why, matching[0].fix))
    return matching[0]


def test_what_apply_made_is_healthy_and_says_what_was_accepted(site: Site) -> None:
    found = findings(site)
    assert not [f for f in found if f.severity != "info"], "\n".join(map(str, found))
    gated = only(found, "restart-rollback")
    assert "(Restart=always, after 1 s), and a failover begins after 5 s" in gated.evidence
    assert "ExecStartPre=/var/lib/redkeep/shop/bin/gate" in gated.why
    version = only(found, "version-end-of-life")
    assert "the distribution's" in version.why
    assert "CVE-2025-49844" in version.why
    assert not of(found, "not-checked")


def test_reachability_from_hosts_of_the_file_and_from_elsewhere(site: Site) -> None:
    told = site.run("check", "--from", "a12", "--from", f"ops@{site.lab['a13'].public}", "--json").ok().json
    assert told["vantages"] == ["a12", site.lab["a13"].public]
    assert not [f for f in told["findings"] if f["severity"] != "info"], told
    assert not [f for f in told["findings"] if f["rule"] == "not-checked"], told


def test_config_drift_by_a_file_edited_by_hand(site: Site) -> None:
    managed = "/var/lib/redkeep/shop/6385/conf/managed.conf"
    site.lab.exec("a12", f"echo 'tcp-keepalive 7' >> {managed}; touch -d '+1 minute' {managed}")
    found = only(findings(site), "config-drift")
    assert found.severity == "warning"
    assert found.subject == "a12:6385"
    assert "tcp-keepalive is 60 (CONFIG GET), 7 in" in found.evidence
    assert "the file was changed" in found.evidence
    site.apply()
    assert not of(findings(site), "config-drift")


def test_config_drift_from_the_deployment_file(site: Site) -> None:
    with site.lab.inside("a13"):
        site.admin("a12:6385").config_set("tcp-keepalive", 8)
    found = only(findings(site), "config-drift")
    assert "tcp-keepalive is 8 (CONFIG GET), 60 in" in found.evidence
    assert "60 by the deployment file" in found.evidence
    assert found.fix.startswith("redkeep apply")
    site.apply()
    assert not of(findings(site), "config-drift")


HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


@contextmanager
def always_huge_pages(lab: Lab, name: str) -> Iterator[None]:
    """What a host reads there for a time; the kernel itself belongs to all of them."""
    lab.exec(name, f"echo '[always] madvise never' > /run/always; mount --bind /run/always {HUGE_PAGES}")
    try:
        yield
    finally:
        lab.exec(name, f"umount {HUGE_PAGES}")


def test_overcommit(site: Site) -> None:
    path = "/proc/sys/vm/overcommit_memory"
    site.lab.exec("a11", f"echo 0 > {path}")
    found = only(findings(site), "overcommit")
    assert found.severity == "warning"
    assert found.subject == "a11"
    assert found.evidence == f"vm.overcommit_memory 0 ({path})"
    site.lab.exec("a11", f"echo 1 > {path}")
    assert not of(findings(site), "overcommit")


def test_huge_pages_that_the_servers_refuse_for_themselves(site: Site) -> None:
    with always_huge_pages(site.lab, "a11"):
        assert not of(findings(site), "transparent-huge-pages")


def test_clock_skew(site: Site) -> None:
    site.lab.set_clock("a12", 90)
    found = only(findings(site), "clock-skew")
    assert found.severity == "warning"
    assert found.subject == "a12"
    assert "90." in found.evidence or "89." in found.evidence
    site.lab.set_clock("a12", 0)
    assert not of(findings(site), "clock-skew")


def test_not_supervised_after_the_unit_was_disabled(site: Site) -> None:
    site.lab.exec("a13", f"systemctl disable {unit(6385)}")
    found = only(findings(site), "not-supervised")
    assert found.severity == "warning"
    assert found.subject == "a13:6385"
    assert f"{unit(6385)} is not enabled" in found.evidence
    site.lab.exec("a13", f"systemctl enable {unit(6385)}")
    assert not of(findings(site), "not-supervised")


@pytest.fixture(scope="module")
def debian(site: Site) -> Iterator[Site]:
    """A primary on a11 and a replica on a12, as the package runs them: snapshots only, Restart=always."""
    text = f"bind 0.0.0.0\\nrequirepass {PASSWORD}\\nmasterauth {PASSWORD}\\ndisable-thp no\\n"
    for name in ("a11", "a12"):
        follow = f"replicaof {site.lab['a11'].private} 6379\\n" if name == "a12" else ""
        site.lab.exec(name, f"printf '{text}{follow}' >> {CONFIG}; systemctl enable redis-server")
        site.lab.exec(name, "systemctl restart redis-server")
    eventually(lambda: _linked(site.lab), 30)
    yield site
    for name in ("a11", "a12"):
        site.lab.exec(name, "systemctl disable --now redis-server")


class TestDebiansOwnService:
    def look(self, site: Site, folder: Path) -> list[Finding]:
        return examined(site.lab, ["a11", "a12"], 6379, PASSWORD, where="a13", keys=folder / "known_hosts")

    def test_restart_rollback(self, debian: Site, tmp_path: Path) -> None:
        found = only(self.look(debian, tmp_path), "restart-rollback")
        assert found.severity == "warning"
        assert found.subject == f"{debian.lab['a11'].private}:6379"
        assert "redis-server.service restarts it (Restart=always, after 0.1 s)" in found.evidence
        assert "nobody is promoted by itself" in found.evidence
        cli = f"redis-cli -a {PASSWORD} --no-auth-warning"
        debian.lab.exec("a11", f"{cli} CONFIG SET appendonly yes && {cli} CONFIG REWRITE")
        assert not of(self.look(debian, tmp_path), "restart-rollback")

    def test_nothing_of_the_package_is_wrong_about_supervision_and_drift(
        self, debian: Site, tmp_path: Path
    ) -> None:
        found = self.look(debian, tmp_path)
        assert not of(found, "not-supervised")
        assert not of(found, "config-drift"), of(found, "config-drift")
        assert not of(found, "file-limit")
        assert only(found, "version-end-of-life").severity == "info"

    def test_transparent_huge_pages(self, debian: Site, tmp_path: Path) -> None:
        with always_huge_pages(debian.lab, "a11"):
            found = only(self.look(debian, tmp_path), "transparent-huge-pages")
            assert f"transparent_hugepage always ({HUGE_PAGES})" in found.evidence
        assert not of(self.look(debian, tmp_path), "transparent-huge-pages")

    def test_not_supervised(self, debian: Site, tmp_path: Path) -> None:
        start = f"setpriv --reuid redis --regid redis --clear-groups redis-server {CONFIG} --daemonize yes"
        debian.lab.exec("a12", f"systemctl stop redis-server; {start}")
        eventually(lambda: _linked(debian.lab), 30)
        found = only(self.look(debian, tmp_path), "not-supervised")
        assert found.subject == f"{debian.lab['a12'].private}:6379"
        assert "no unit, container or supervisor" in found.evidence
        debian.lab.exec(
            "a12", f"redis-cli -a {PASSWORD} --no-auth-warning SHUTDOWN NOSAVE; systemctl start redis-server"
        )
        eventually(lambda: _linked(debian.lab), 30)
        assert not of(self.look(debian, tmp_path), "not-supervised")

    def test_disk_low_and_full(self, debian: Site, tmp_path: Path) -> None:
        lab, folder = debian.lab, "/var/lib/redis"
        lab.exec("a12", "systemctl stop redis-server")
        lab.disk.shrink("a12", folder, "300M")
        lab.exec("a12", "systemctl start redis-server")
        eventually(lambda: _linked(lab), 30)
        assert not of(self.look(debian, tmp_path), "disk-low")
        lab.disk.fill("a12", folder)
        try:
            found = self.look(debian, tmp_path)
        finally:  # a server that cannot save does not stop
            lab.disk.free("a12", folder)
        low = only(found, "disk-low")
        assert low.subject == lab["a12"].private
        assert "0 bytes are free of the 300.0 MiB below /var/lib/redis" in low.evidence
        assert "0 bytes are free of the 300.0 MiB" in only(found, "persistence-failing").evidence
        found = self.look(debian, tmp_path)
        assert not of(found, "disk-low")
        assert not of(found, "persistence-failing")


def _linked(lab: Lab) -> None:
    """The replica on a12 has its copy."""
    info = lab.exec("a12", f"redis-cli -a {PASSWORD} --no-auth-warning INFO replication", check=False).stdout
    assert "master_link_status:up" in info, info
