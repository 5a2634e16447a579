"""Whatever a victim's nginx says, the planned one is accepted by a real nginx, and holds nothing that it should not."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest

from redkeep.rescue.disk.source import opened
from redkeep.rescue.inspection.index import index
from redkeep.rescue.inspection.looking import Look
from redkeep.rescue.rebuild.nginxfiles import NginxFiles, nginx_files
from redkeep.rescue.rebuild.words import Unsafe, directory, near, quoted, regular, server_name
from tests.rescue import victim, webserver

#: Directives with values that people write, that intruders write, and that nobody should.
VALUES = {
    "server_name": [
        "shop.example",
        "a.example *.b.example",
        "_",
        "~^(?<x>.+)$",
        '"a; }"',
        "图.example",
        "x" * 63 + ".example",
    ],
    "listen": [
        "80",
        "443 ssl",
        "8080",
        "80 default_server",
        "[::]:80",
        "127.0.0.1:81",
        "unix:/tmp/x",
        "99999",
        "80a",
    ],
    "root": [
        "/data/upload",
        "/srv/www/",
        "html",
        "/etc",
        "/tmp/x",
        "/srv/../etc",
        "$host",
        "/srv/图片",
        '"/srv/a b"',
        "/",
    ],
    "alias": ["/data/upload/", "/data/upload", "x/", "/root/.ssh/", "/data/$1"],
    "index": ["index.php index.html", "a;b", "../x"],
    "try_files": ["$uri $uri/ /index.php?$args", "$uri =404", "$uri @x", "/etc/passwd", "$evil =404"],
    "expires": ["30d", "max", "-1", "x", "1d 2d"],
    "return": [
        "301 https://$host$request_uri",
        "404",
        "200 text",
        "302 http://evil.example/",
        "301 /x",
        "301 //evil.example",
        "999",
    ],
    "rewrite": [
        "^/(.*)$ /index.php?s=$1 last",
        "^ https://$host permanent",
        "^/a{2}$ /b",
        "( /b",
        "^ //evil.example",
    ],
    "proxy_pass": [
        "http://up",
        "http://up/x",
        "http://127.0.0.1:80/",
        "http://evil.example",
        "https://10.0.0.1",
        "http://$x",
    ],
    "fastcgi_pass": ["127.0.0.1:9000", "unix:/run/php.sock", "up", "unix:/tmp/x.sock", "8.8.8.8:9"],
    "uwsgi_pass": ["up", "unix:/run/u.sock", "nobody"],
    "proxy_set_header": [
        "Host $host",
        'X-A "b c"',
        "Upgrade $http_upgrade",
        "Authorization secret",
        'X "a\\nb"',
    ],
    "add_header": ["X-Frame-Options DENY always", 'Cache-Control "no-store"', "Link evil", "Vary $evil"],
    "allow": ["all", "10.0.0.0/8", "1.2.3.4", "x"],
    "deny": ["all", "1.2.3.4", "x"],
    "error_page": ["404 /404.html", "500 502 =200 /x", "404 http://evil.example"],
    "gzip": ["on", "maybe"],
    "gzip_types": ["text/css", "text/css text/html *", "x"],
    "client_max_body_size": ["10m", "0", "10x"],
    "proxy_buffers": ["8 4k", "1 1k"],
    "charset": ["utf-8", "koi8-r"],
    "proxy_http_version": ["1.1", "2"],
    "proxy_redirect": ["off", "default", "a b"],
    "internal": [""],
    "auth_basic": ["x", "off"],
    "content_by_lua_block": ['{ os.execute("x") }'],
    "sub_filter": ["a b"],
    "fastcgi_param": ["SCRIPT_FILENAME x", "PHP_VALUE auto_prepend_file=/tmp/x"],
    "limit_except": ["GET { deny all; }"],
}
LOCATIONS = [
    *(
        "/",
        "/a/",
        "/a",
        "= /x",
        "^~ /up/",
        "~ \\.php$",
        "~* \\.(gif|jpg)$",
        "@x",
        '"/x y"',
        "/a/b",
        "~ ^/a{2}/",
    ),
    *(
        "/.well-known/acme-challenge/",
        "/图片/",
        "~ (",
        "~\\.php$",
        '"/x\\"; } location /y {"',
        "~ (?<n>a)",
        "a b c",
        "/x\\",
    ),
]
#: What must never come through, in any place.
NEVER = re.compile(
    r"evil|lua|os\.execute|/etc|/tmp|\.ssh|auto_prepend|PHP_VALUE|Authorization|8\.8\.8\.8|location /y"
)


def block(dice: random.Random, depth: int = 0) -> str:
    lines = []
    for _ in range(dice.randint(2, 10)):
        which = dice.random()
        if which < 0.3 and depth < 3:
            lines.append(f"location {dice.choice(LOCATIONS)} {{ {block(dice, depth + 1)} }}")
        elif which < 0.35:
            lines.append("if (!-e $request_filename) { rewrite ^(.*)$ /index.php?s=$1 last; }")
        else:
            name = dice.choice(list(VALUES))
            value = dice.choice(VALUES[name])
            lines.append(f"{name} {value}" + ("" if value.endswith("}") else ";"))
    return "\n".join(lines)


def planned(root: Path, text: str) -> NginxFiles:
    victim.put(root, "/etc/nginx/nginx.conf", text)
    (root / "data/upload").mkdir(parents=True, exist_ok=True)
    with opened(root) as evidence:
        look = Look(evidence.tree, index(evidence.tree, frozenset(), lambda n: None))
        return nginx_files(look, "/srv/rescued")


def write(files: NginxFiles, at: Path, certificate: tuple[bytes, bytes]) -> None:
    shutil.rmtree(at / "rescued")
    (at / "rescued").mkdir()
    for old in (at / "conf.d").iterdir():
        old.unlink()
    for name, text in files.texts.items():
        (at / (name if "/" in name else f"conf.d/{name}")).write_text(text)
    for site in files.sites:
        victim.put(at, f"rescued/tls/site-{site.number}/fullchain.pem", certificate[0])
        victim.put(at, f"rescued/tls/site-{site.number}/privkey.pem", certificate[1])


def test_nginx_takes_whatever_comes_of_it(tmp_path: Path) -> None:
    at = webserver.prefix(tmp_path / "prefix")
    certificate = victim._certificate()
    kept = 0
    for seed in range(60):
        dice = random.Random(seed)
        servers = "\n".join(f"server {{ {block(dice)} }}" for _ in range(4))
        text = f"http {{ upstream up {{ server 127.0.0.1:8080; server evil.example; }}\n{servers} }}\n"
        files = planned(tmp_path / "root", text)
        write(files, at, certificate)
        assert webserver.complaints(at) == "", f"seed {seed}\n{text}"
        for name, made in files.texts.items():
            assert not NEVER.search(made), f"seed {seed}, {name}: {NEVER.search(made)}\n{made}"
            kept += made.count("location")
    assert kept > 250, "the test carries hardly anything over"


def test_a_location_whose_answer_was_left_out_answers_nobody(tmp_path: Path) -> None:
    """PHP that would be handed out as text, a closed area that would be open: closed until somebody looks at it."""
    files = planned(
        tmp_path,
        "http { server { root /data/upload; location ~ \\.php$ { fastcgi_pass evil.example:9000; }\n"
        "location /admin/ { auth_request /check; } location /x/ { allow 203.0.113.9; deny all; } } }",
    )
    text = files.texts["rescued/site-1.inc"]
    assert text.count("return 503;") == 2
    assert "location /x/ {\n    deny all;\n}" in text


def test_redirects_to_the_sites_own_names_are_kept(tmp_path: Path) -> None:
    """``www.`` to the plain name and back, which nearly every site has."""
    files = planned(
        tmp_path,
        "http { server { server_name shop.example; root /data/upload; }\n"
        "server { server_name www.shop.example shop.example.org; return 301 https://shop.example$request_uri; }\n"
        "server { server_name a.example; location /old { return 301 $scheme://$host$request_uri; }\n"
        "location /far { return 302 https://evil.example$request_uri; } root /data/upload; } }",
    )
    text = "".join(files.texts.values())
    assert "return 301 https://shop.example$request_uri;" in text
    assert "return 301 $scheme://$host$request_uri;" in text
    assert "evil.example" not in text
    assert [one["why"] for one in files.left_out if "evil" in one["what"]] == [
        "it sends visitors to another host"
    ]


def test_connections_of_websocket_are_carried_over(tmp_path: Path) -> None:
    """With a variable of our own, whatever the old one of that name was made of."""
    files = planned(
        tmp_path / "root",
        "http { map $http_upgrade $connection_upgrade { default upgrade; '' close; }\n"
        "server { location /ws { proxy_pass http://127.0.0.1:3000; proxy_http_version 1.1;\n"
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; } } }",
    )
    assert files.left_out == []
    assert "proxy_set_header Connection $rescued_upgrade;" in files.texts["rescued/site-1.inc"]
    at = webserver.prefix(tmp_path / "prefix")
    write(files, at, victim._certificate())
    assert webserver.complaints(at) == ""


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (directory, "/srv/a\nb"),
        (directory, "/usr/bin"),
        (directory, "//etc/nginx"),
        (directory, "/proc/self"),
        (directory, "/var/lib/mysql/shop"),
        (near, "8.8.8.8:80"),
        (near, "169.254.169.254"),
        (near, "metadata.internal"),
        (near, "127.0.0.1:0"),
        (near, "0.0.0.0:80"),
        (quoted, "a\\"),
        (quoted, "a\x1b"),
        (quoted, "a\u2028b"),
        (regular, "(?<host>x)"),
        (regular, "(?u)x"),
        (regular, "("),
        (server_name, "~."),
        (server_name, "a..b"),
        (server_name, "*.a.*"),
    ],
)
def test_words_that_are_refused(function, word: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unsafe):
        function(word)


def test_words_that_are_kept() -> None:
    assert directory("/srv/图片//a/") == "/srv/图片/a/"
    assert [near("localhost"), near("10.1.2.3:8080"), near("[fd00::1]:81")] == [
        "127.0.0.1:80",
        "10.1.2.3:8080",
        "[fd00::1]:81",
    ]
    assert quoted('a "b" \\.c') == '"a \\"b\\" \\.c"'
    assert quoted("/plain/$uri") == "/plain/$uri"
