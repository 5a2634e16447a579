from __future__ import annotations

from pathlib import Path

import pytest

from redkeep.errors import RefusedError, UsageError
from redkeep.model.spec import load
from redkeep.usecases.init import Answers, parse_host, render, write

HOSTS = (
    "sz-1=root@203.0.113.11,private=10.0.0.11,zone=aliyun/sz-a",
    "ops@203.0.113.21",
    "gz-2=bastion-alias,public=203.0.113.22",
)


def hosts(*texts: str) -> tuple[dict[str, str], ...]:
    return tuple(parse_host(text, index) for index, text in enumerate(texts, start=1))


def test_this_machine() -> None:
    text = render(Answers(mode="cluster", hosts=hosts("local")))
    assert "\nhosts: [local]\n" in text
    assert load(text).engine.source == "bundled"


def test_hosts_and_everything_else() -> None:
    answers = Answers(
        mode="sentinel",
        name="shop",
        hosts=hosts(*HOSTS),
        flavor="valkey",
        source="package",
        clients="public",
        maxmemory="1.5gb",
    )
    spec = load(render(answers))
    assert [host.name for host in spec.hosts] == ["sz-1", "h2", "gz-2"]
    assert [host.public for host in spec.hosts] == ["203.0.113.11", "203.0.113.21", "203.0.113.22"]
    assert spec.hosts[0].private == "10.0.0.11"
    assert (spec.name, spec.mode, spec.engine.flavor, spec.maxmemory) == (
        "shop",
        "sentinel",
        "valkey",
        3 * 2**29,
    )


def test_a_named_host_on_this_machine_keeps_its_name() -> None:
    assert load(render(Answers(mode="standalone", hosts=hosts("box=local")))).hosts[0].name == "box"


@pytest.mark.parametrize("path", ["dist/redis 7.tar.gz", 'a"b', "#x", "yes", "größe: [", "1:2"])
def test_text_that_yaml_would_misread(path: str) -> None:
    answers = Answers(mode="cluster", hosts=hosts("local"), flavor="redis", source="tarball", path=path)
    assert load(render(answers)).engine.path == path


def test_comments_start_in_one_column() -> None:
    text = render(Answers(mode="cluster", hosts=hosts("local"), maxmemory="2GiB"))
    columns = {line.rindex("# ") for line in text.splitlines() if "# " in line.lstrip("# ")}
    assert columns == {32}


def test_answers_that_make_no_deployment() -> None:
    with pytest.raises(UsageError) as caught:
        render(Answers(mode="clutser", hosts=hosts("local")))
    assert caught.value.where == "redkeep init: mode"


@pytest.mark.parametrize("text", ["a=b,c", "a=b,colour=red", "a=b,zone="])
def test_not_a_host(text: str) -> None:
    with pytest.raises(UsageError, match="not a part of a host"):
        parse_host(text, 1)


def test_writes_once(tmp_path: Path) -> None:
    file = tmp_path / "redkeep.yaml"
    text = render(Answers(mode="cluster", hosts=hosts("local")))
    write(text, file)
    with pytest.raises(RefusedError, match="already there"):
        write(text, file)
    write(text.replace("cluster   ", "standalone"), file, force=True)
    assert load(file.read_text()).mode == "standalone"


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        write(render(Answers(mode="cluster", hosts=hosts("local"))), tmp_path / "none" / "redkeep.yaml")


@pytest.mark.parametrize(
    ("ssh", "public"),
    [
        ("root@203.0.113.1", "203.0.113.1"),
        ("root@203.0.113.1:2222", "203.0.113.1"),
        ("root@[2001:db8::1]:2222", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_public_address_is_the_one_that_ssh_reaches(ssh: str, public: str) -> None:
    answers = Answers("standalone", ({"name": "a", "ssh": ssh},), clients="public")
    assert load(render(answers)).hosts[0].public == public


def test_lines_of_a_file_that_does_not_exist_are_not_named() -> None:
    with pytest.raises(UsageError) as refused:
        render(Answers("cluster", (parse_host("local", 1), parse_host("local", 2))))
    assert "also hosts[1]" in refused.value.next
    assert "redkeep.yaml" not in str(refused.value)
