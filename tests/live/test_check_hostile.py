"""Servers that lie, break off, flood or stay silent: a finding or an error of three lines, never a traceback or a hang."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from redkeep.errors import RedkeepError
from tests.live.doctor import Diagnosis, doctor
from tests.live.pretenders import Answer, commands_in, each, pretending
from tests.live.servers import available, running

pytestmark = pytest.mark.live

INFO = (
    "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:{run_id}\r\nprocess_id:1\r\n# Replication\r\n"
    "role:{role}\r\n{more}\r\n# Keyspace\r\ndb0:keys=3,expires=0\r\n"
)


def bulk(text: str) -> bytes:
    data = text.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


def lying(more: str, *, role: str = "master", other: bytes = b"-ERR unknown command\r\n") -> Answer:
    """PONG, this INFO, and the same answer to everything else."""
    info = bulk(INFO.format(run_id="f" * 40, role=role, more=more))

    def answer(data: bytes) -> bytes:
        replies = []
        for command in re.split(rb"\r\n(?=\*\d)", data):  # an argument may be a star
            if b"PING" in command:
                replies.append(b"+PONG\r\n")
            else:
                replies.append(info if b"INFO" in command and b"COMMAND" not in command else other)
        return b"".join(replies)

    return answer


def made_up(count: int, hosts: str) -> str:
    """So many replicas, none of which is there."""
    lines = (
        f"slave{i}:ip={hosts.format(i // 250 % 250, i % 250 + 1)},port={1 + i % 60_000},state=online,offset=1,lag=1"
        for i in range(count)
    )
    return "\r\n".join(lines)


def diagnose(answer: Answer) -> Diagnosis | RedkeepError:
    """Within a few seconds, whatever is answered."""
    started = time.monotonic()
    with pretending(answer) as server:
        try:
            return doctor(f"127.0.0.1:{server.port}")
        except RedkeepError as error:
            return error
        finally:
            assert time.monotonic() - started < 90


@pytest.mark.parametrize(
    "answer",
    [
        each(b"+OK\r\n"),
        each(b":1\r\n"),
        each(b"*-1\r\n"),
        each(b"$-1\r\n"),
        each(b"*0\r\n"),
        each(b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n$-1\r\n"),
        each(b"-\r\n"),
        each(b"$5\r\nab"),
        each(b"$999999999999\r\nab"),
        each(b"*2147483647\r\n"),
        each(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        each(b"\x15\x03\x01\x00\x02\x02\x28"),
        each(b"*1\r\n" * 5000),
        lambda data: None,
        lying("slave0:ip=,port=x,state=\r\n"),
        lying("slave0:ip=::::,port=-5,state=online,offset=1,lag=1\r\n"),
        lying("master_host:\r\nmaster_port:99999999\r\n", role="slave"),
        lying("master_host:no such host\r\nmaster_port:1\r\n", role="slave"),
        lying(
            "\r\n".join(f"slave{i}:ip=127.0.0.1,port={i},state=online,offset=1,lag=1" for i in range(1, 40))
        ),
        lying("", other=b"*2\r\n$1\r\na\r\n:1\r\n"),
        lying("", other=bulk("x y z\n" * 100)),
        lying("", other=b"*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n*0\r\n:7\r\n:8\r\n"),
        lying(made_up(1500, "127.0.{}.{}")),
        lying(made_up(50_000, "127.0.{}.{}")),
        lying(
            "cluster_enabled:1",
            other=bulk("\n".join(f"{i:040} 127.0.0.9:{i}@1 master - 0 0 1 connected" for i in range(9999))),
        ),
        lying("used_memory:none\r\n"),
        lying(
            f"used_memory:{'9' * 5000}\r\nrepl_backlog_size:-1\r\nslave0:ip=a,port=1,state=online,offset={'9' * 5000}"
        ),
        lying(
            "cluster_enabled:1\r\nuptime_in_seconds:\u00b2\r\n",
            other=b"*2\r\n$9\r\nmaxmemory\r\n$2\r\n\xc2\xb2\r\n",
        ),
        lying("", other=b"*2\r\n$11\r\ntcp-backlog\r\n$2\r\n\xc2\xb2\r\n"),
        lying("", role="sentinel"),
        lying("redis_mode:sentinel", other=b"*1\r\n*2\r\n$4\r\nname\r\n$1\r\nx\r\n"),
    ],
)
def test_answers_that_make_no_sense(answer: Answer) -> None:
    found = diagnose(answer)
    if isinstance(found, RedkeepError):
        assert found.what
        assert found.where


@pytest.mark.parametrize("seed", range(25))
def test_noise(seed: int) -> None:
    noise = random.Random(seed)

    def answer(data: bytes) -> bytes:
        pieces = [
            b"+",
            b"-",
            b":",
            b"$",
            b"*",
            b"\r\n",
            b"-1",
            b"3",
            b"1000000",
            b"PONG",
            b"\x00\xff",
            bulk("a:b"),
        ]
        return b"".join(noise.choice(pieces) for _ in range(noise.randrange(40) * commands_in(data)))

    diagnose(answer)


def test_a_real_server_cut_short_and_mangled(tmp_path: Path) -> None:
    """Real answers with bytes missing or changed."""
    import socket

    with running(available()[0], tmp_path) as server:
        for seed in range(6):
            noise = random.Random(seed)

            def answer(data: bytes, noise: random.Random = noise) -> bytes:
                with socket.create_connection(("127.0.0.1", server.port), 2) as real:
                    real.settimeout(0.05)
                    real.sendall(data)
                    reply = bytearray()
                    try:
                        while part := real.recv(1 << 16):
                            reply += part
                    except TimeoutError:
                        pass
                for _ in range(noise.randrange(4) if reply else 0):
                    reply[noise.randrange(len(reply))] = noise.randrange(256)
                return bytes(reply[: noise.randint(len(reply) // 2, len(reply))])

            diagnose(answer)


def test_a_silent_node_costs_its_timeout_once(tmp_path: Path) -> None:
    with pretending(lambda data: None) as silent, running(available()[0], tmp_path) as server:
        started = time.monotonic()
        found = doctor(server, f"127.0.0.1:{silent.port}")
        assert time.monotonic() - started < 5
        assert any("says nothing" in f.evidence for f in found.of("not-checked")), found.told
