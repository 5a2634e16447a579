"""Another kind of server than the story's: an Ubuntu whose sites share snippets, and whose secrets stand in many places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep
from tests.rescue.victim import put

#: None of these may be in a report, wherever they stand.
SECRETS = [
    "yaml-one",
    "yaml-prod",
    "yaml-test",
    "list-1",
    "list-2",
    "env-quoted",
    "env-base",
    "env-number",
    "env-list",
    "env-key",
    "unit-option",
    "unit-property",
    "unit-word",
    "cron-mysql",
    "cron-redis",
    "cron-curl",
    "cron-env",
    "redis-user",
    "redis-included",
    "wsrep-word",
    "php-word",
    "default-word",
    "alone-word",
    "node-js",
    "node-json",
    "discuz-word",
    "hunter22",
    "5e884898da28",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ubuntu")
    for directory in ("usr/bin", "var/log", "tmp", "root", "home/deploy"):
        (root / directory).mkdir(parents=True)
    put(root, "/etc/os-release", 'PRETTY_NAME="Ubuntu 22.04.3 LTS"\nVERSION_ID="22.04"\nID=ubuntu\n')
    put(root, "/etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndeploy:x:1001:1001::/home/deploy:/bin/bash\n")
    put(root, "/etc/shadow", "root:*:19000::::::\ndeploy:$y$j9T$abc$def:19000::::::\n", 0o600)
    _nginx(root)
    _settings(root)
    _redis(root)
    return root


def _nginx(root: Path) -> None:
    put(
        root,
        "/etc/nginx/nginx.conf",
        "user www-data;\nevents {}\nhttp {\n  include conf.d/*.conf;\n  include /etc/nginx/sites-enabled/*;\n}\n",
    )
    put(
        root,
        "/etc/nginx/snippets/tls.conf",
        "listen 443 ssl http2;\nssl_certificate /etc/ssl/all.pem;\nssl_certificate_key /etc/ssl/all.key;\n",
    )
    put(root, "/etc/nginx/snippets/circle.conf", "include snippets/again.conf;\n")
    put(root, "/etc/nginx/snippets/again.conf", "include snippets/circle.conf;\ncharset utf-8;\n")
    (root / "etc/nginx/sites-enabled").mkdir()
    for name, port in (("one", 3000), ("two", 4000)):
        put(
            root,
            f"/etc/nginx/sites-available/{name}",
            f"server {{\n  server_name {name}.example;\n  include snippets/tls.conf;\n  include snippets/circle.conf;\n"
            f"  root /var/www/{name};\n  location / {{ proxy_pass http://127.0.0.1:{port}; }}\n}}\n",
        )
        (root / "etc/nginx/sites-enabled" / name).symlink_to(f"/etc/nginx/sites-available/{name}")
        put(root, f"/var/www/{name}/index.html", name)


def _settings(root: Path) -> None:
    put(
        root,
        "/var/www/one/application.yml",
        "spring:\n  redis: {host: 127.0.0.1, password: yaml-one}\n---\n"
        "spring:\n  profiles: prod\n  redis: {password: yaml-prod}\n---\n"
        "spring:\n  config: {activate: {on-profile: test}}\n  redis: {password: yaml-test}\n"
        "app:\n  redis:\n    passwords: [list-1, list-2]\n"
        "    auth: {password: '${SET:default-word}', token: '${SET}', secret: '${SET:}'}\n"
        "    url: redis://alone-word@127.0.0.1:6379/0\n",
    )
    put(
        root,
        "/var/www/two/.env",
        'export DB_PASSWORD="env-quoted" # the old one\nSECRET_KEY_BASE=env-base\nMAIL_PASSWORD_2=env-number\n'
        "API_KEYS[0]=env-list\nENCRYPTION_KEY='env-key'\nREDIS_URL=redis://default:hunter22@127.0.0.1:6379/0\n",
    )
    put(
        root,
        "/etc/systemd/system/app.service",
        "[Service]\nUser=deploy\nExecStart=/usr/bin/java -Dspring.redis.password=unit-property -jar /srv/app.jar \\\n"
        "  --spring.datasource.password=unit-option --token unit-word --server.port=8080\n",
    )
    put(
        root,
        "/etc/cron.d/backup",
        "0 3 * * * root mysqldump -uroot -pcron-mysql shop | gzip > /backup/x.gz\n"
        "5 * * * * root redis-cli -a 'cron-redis' BGSAVE\n"
        "6 * * * * root curl -u admin:cron-curl http://127.0.0.1/ping\n"
        "7 * * * * root PGPASSWORD=cron-env pg_dump -p 5432 shop\n"
        "8 * * * * root mysqldump -p$PASSWORD other\n",
    )
    put(root, "/usr/share/nginx/html/blog/wp-config.php", "<?php define('DB_PASSWORD', 'php-word');\n")
    put(root, "/usr/share/php/library/wp-config.php", "<?php define('DB_PASSWORD', 'example');\n")
    put(root, "/srv/node/package.json", '{"name": "shop-front"}')
    put(
        root,
        "/srv/node/config.js",
        "module.exports = { redis: { host: '10.0.0.9', password: 'node-js' } };\n",
    )
    put(
        root,
        "/srv/node/config/production.json",
        '{"database": {"host": "db.internal", "password": "node-json"}}',
    )
    put(root, "/srv/discuz/config/config_global.php", "<?php\n$_config['db']['1']['dbpw'] = 'discuz-word';\n")
    put(root, "/etc/mysql/my.cnf", "[mysqld]\nwsrep_sst_auth=sst:wsrep-word\n")
    put(root, "/var/lib/mysql/ibdata1", bytes(4096))


def _redis(root: Path) -> None:
    put(
        root,
        "/etc/redis/redis.conf",
        "include common.conf\ninclude /etc/redis/conf.d/*.conf\ninclude /etc/redis/missing.conf\nport\t6379\n"
        "dir /var/lib/redis\naclfile /etc/redis/users.acl\n",
    )
    put(
        root,
        "/etc/redis/common.conf",
        "bind 0.0.0.0\nprotected-mode no\nport 1\nappendonly yes\ninclude redis.conf\n",
    )
    put(root, "/etc/redis/conf.d/10.conf", "port 2\nmaxmemory 100mb\nmasterauth 'redis-included'\n")
    put(
        root,
        "/etc/redis/users.acl",
        "user default on nopass ~* +@all\nuser app on >redis-user #5e884898da28 ~* +@all\n",
    )
    put(
        root,
        "/etc/redis/second-redis.conf",
        "port 6380\nbind 0.0.0.0\ndir /var/lib/redis2\naclfile /etc/redis/closed.acl\n",
    )
    put(root, "/etc/redis/closed.acl", "user default on >redis-user ~* +@all\n")


@pytest.fixture(scope="module")
def report(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Redkeep(tmp_path_factory.mktemp("run"))("rescue", "inspect", str(root), "--json").ok().json


def test_a_snippet_is_included_in_every_site(report: Any) -> None:
    sites = {site["names"][0]: site for site in report["sites"]}
    assert set(sites) == {"one.example", "two.example"}
    for site in sites.values():
        assert site["listens"] == ["443 ssl http2"]
        assert site["certificates"] == ["/etc/ssl/all.pem"]
    assert not any("nginx" in line for line in report["not_looked_at"])


def test_an_nginx_that_was_built_from_source(tmp_path: Path) -> None:
    """Roots are relative to its prefix, certificates to its conf; what all sites share stands above them."""
    root = tmp_path / "root"
    text = (
        "http { root html; index index.php; ssl_certificate all.pem; ssl_certificate_key all.key;\n"
        "proxy_set_header Host $host;\n"
        "server { listen 443 ssl; server_name one.example; location /api/ { proxy_pass http://127.0.0.1:81; } }\n"
        "server { server_name two.example; root /data/two; location /up/ { alias up/; } } }\n"
    )
    put(root, "/usr/local/nginx/conf/nginx.conf", text)
    put(root, "/usr/local/nginx/html/index.php", "<?php")
    put(root, "/usr/local/nginx/up/x.jpg", "x")
    sites = {
        s["names"][0]: s
        for s in Redkeep(tmp_path)("rescue", "inspect", str(root), "--json").ok().json["sites"]
    }
    assert sites["one.example"]["roots"] == ["/usr/local/nginx/html"]
    assert sites["one.example"]["certificates"] == ["/usr/local/nginx/conf/all.pem"]
    assert sites["two.example"]["roots"] == ["/data/two"]
    assert sites["two.example"]["uploads"][0]["path"] == "/usr/local/nginx/up/"
    planned = Redkeep(tmp_path)("rescue", "plan", str(root), "--json").ok().json
    assert [one["what"] for one in planned["left_out"]] == ["the files of /data/two"]
    first, second = ((tmp_path / f"rebuild/nginx/rescued/site-{i}.inc").read_text() for i in (1, 2))
    assert "root /srv/rescued/usr/local/nginx/html;" in first
    assert "index index.php;" in first
    assert "proxy_set_header Host $host;" in first
    assert "alias /srv/rescued/usr/local/nginx/up/;" in second


def test_no_secret_is_in_a_report(root: Path, report: Any, tmp_path: Path) -> None:
    told = Redkeep(tmp_path)("rescue", "inspect", str(root), "--html", "report.html").ok()
    for text in (json.dumps(report), told.stdout, (tmp_path / "report.html").read_text()):
        assert not [secret for secret in SECRETS if secret in text]
    settings = {v["key"]: v for a in report["applications"] for p in a["settings"] for v in p["values"]}
    assert settings["spring.redis.password (prod)"]["characters"] == len("yaml-prod")
    assert settings["DB_PASSWORD"]["characters"] == len("env-quoted")
    assert settings["app.redis.auth.password"]["characters"] == len("default-word")
    assert settings["app.redis.auth.token"]["value"] == "${SET}"
    assert settings["app.redis.auth.secret"]["value"] == "${SET:}"
    assert settings["host"]["value"] == "10.0.0.9"
    assert settings["database.password"]["characters"] == len("node-json")
    assert settings["_config.db.1.dbpw"]["characters"] == len("discuz-word")
    assert "/usr/share/nginx/html/blog" in {a["path"] for a in report["applications"]}
    runs = [service["runs"] for service in report["services"]]
    assert any(r.endswith("--token (9 characters) --server.port=8080") for r in runs)
    assert "7 * * * * root PGPASSWORD=(8 characters) pg_dump -p 5432 shop" in runs
    assert "8 * * * * root mysqldump -p$PASSWORD other" in runs
    revealed = Redkeep(tmp_path)("rescue", "inspect", str(root), "--json", "--reveal").ok().stdout
    assert "cron-mysql" in revealed
    assert "yaml-prod" in revealed


def test_a_report_of_an_earlier_run_becomes_its_owners(root: Path, tmp_path: Path) -> None:
    put(tmp_path, "report.html", "before", 0o644)
    Redkeep(tmp_path)("rescue", "inspect", str(root), "--html", "report.html", "--reveal").ok()
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600


def test_a_configuration_of_redis_with_includes(report: Any) -> None:
    first, second = sorted(report["redis"]["configurations"], key=lambda c: int(c["port"]))
    assert (first["path"], first["port"], first["appendonly"]) == ("/etc/redis/redis.conf", "6379", "yes")
    assert first["includes"] == [
        "/etc/redis/common.conf",
        "/etc/redis/conf.d/10.conf",
        "/etc/redis/users.acl",
    ]
    assert "protected-mode no" in first["open"]
    assert (second["path"], second["open"]) == ("/etc/redis/second-redis.conf", "")


def test_what_is_included_is_extracted(root: Path, tmp_path: Path) -> None:
    Redkeep(tmp_path)("rescue", "extract", str(root), "bundle", "--only", "redis").ok()
    found = sorted(p.name for p in (tmp_path / "bundle/files/etc/redis").rglob("*") if p.is_file())
    assert found == ["10.conf", "closed.acl", "common.conf", "redis.conf", "second-redis.conf", "users.acl"]


def test_what_commands_are_given_is_to_be_rotated(root: Path, tmp_path: Path) -> None:
    document = Redkeep(tmp_path)("rescue", "plan", str(root), "--json").ok().json
    told = {one["where"] for one in document["rotate"]}
    assert {"/etc/cron.d/backup", "/etc/systemd/system/app.service", "/var/www/two/.env"} <= told
    written = "".join(p.read_text() for p in (tmp_path / "rebuild").rglob("*") if p.is_file())
    assert not [secret for secret in SECRETS if secret in written]
    assert written.count("server_name two.example;") == 2
