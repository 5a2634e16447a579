from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest
import yaml

from redkeep.errors import UsageError
from redkeep.model.timing import timing_of
from redkeep.model.topology import Address
from redkeep.planning.clients import LIBRARIES, ClientFacts, Library, find, settings
from redkeep.planning.clients.pace import pace
from redkeep.planning.clients.template import render

SECRET = 'p\u00e4ss "word" \\ $'


def facts(mode: str = "sentinel", **changes: Any) -> ClientFacts:
    servers = tuple(Address("10.0.0.1", port) for port in (7000, 7001, 7002))
    sentinels = tuple(Address("10.0.0.2", port) for port in (8000, 8001, 8002)) if mode == "sentinel" else ()
    values: dict[str, Any] = {
        "deployment": "shop",
        "mode": mode,
        "servers": servers if mode != "standalone" else servers[:1],
        "sentinels": sentinels,
        "ca": "",
        "login": True,
        "password": None,
        "pace": pace(timing_of("balanced", cluster=mode == "cluster")),
    }
    return ClientFacts(**(values | changes))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda lib: lib.full_name)
@pytest.mark.parametrize("mode", ["standalone", "sentinel", "cluster"])
def test_every_library_names_what_clients_ask_first(library: Library, mode: str) -> None:
    wanted = {"sentinel": (8000, 8001, 8002), "cluster": (7000, 7001, 7002), "standalone": (7000,)}[mode]
    others = {7000, 7001, 7002, 8000, 8001, 8002} - set(wanted)
    for tls, login in product(("", "/etc/shop/ca.crt"), (True, False)):
        text = "\n".join(file.text for file in settings(library, facts(mode, ca=tls, login=login)))
        assert all(str(port) in text for port in wanted)
        assert not any(str(port) in text for port in others)
        assert ("/etc/shop/ca.crt" in text) is bool(tls)
        assert ("REDIS_PASSWORD" in text) is login
        assert "%%" not in text
        assert "{{" not in text


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda lib: lib.full_name)
def test_the_password_is_there_only_when_it_was_asked_for(library: Library) -> None:
    found = settings(library, facts(password=SECRET))
    assert any(json.dumps(SECRET, ensure_ascii=False) in file.text for file in found)
    assert SECRET not in repr(found)
    assert SECRET not in repr(facts(password=SECRET))


@pytest.mark.parametrize("name", ["spring-boot", "spring-boot-2.1"])
@pytest.mark.parametrize("mode", ["standalone", "sentinel", "cluster"])
def test_what_spring_reads_is_yaml(name: str, mode: str) -> None:
    files = {
        file.name: file.text for file in settings(find(name), facts(mode, ca="/ca.crt", password=SECRET))
    }
    spring = yaml.safe_load(files["application.yml"])["spring"]
    redis = spring["redis"] if name == "spring-boot-2.1" else spring["data"]["redis"]
    assert redis["password"] == SECRET


def test_python_settings_compile() -> None:
    for mode, ca in product(("standalone", "sentinel", "cluster"), ("", "/ca.crt")):
        (file,) = settings(find("redis-py"), facts(mode, ca=ca, password=SECRET))
        compile(file.text, file.name, "exec")


def test_a_password_that_spring_would_expand_is_not_revealed() -> None:
    with pytest.raises(UsageError, match="placeholder") as error:
        settings(find("spring-boot"), facts(password="a${b}"))
    assert "a${b}" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "stack", "full"),
    [
        ("lettuce", "", "lettuce"),
        ("Spring_Boot", "", "spring-boot"),
        ("spring-boot-2.1", "", "spring-boot-2.1"),
        ("spring-boot", "2.1", "spring-boot-2.1"),
    ],
)
def test_names(name: str, stack: str, full: str) -> None:
    assert find(name, stack).full_name == full


def test_an_unknown_name_gets_the_list() -> None:
    with pytest.raises(UsageError) as error:
        find("letuce")
    assert "did you mean lettuce?" in error.value.next
    assert all(lib.full_name in error.value.next for lib in LIBRARIES)


@pytest.mark.parametrize("failover", ["fast", "balanced", "patient", 200, 600_000])
@pytest.mark.parametrize("cluster", [True, False])
def test_one_answer_is_short_and_all_tries_outlast_a_failover(failover: str | int, cluster: bool) -> None:
    timing = timing_of(failover, cluster=cluster)
    found = pace(timing)
    assert 1_000 <= found.command_ms <= 3_000
    assert found.command_ms < found.user_timeout_ms
    assert found.retry_for_ms > timing.detection_ms + 1_000
    assert found.retry_for_ms > found.command_ms


def test_templates() -> None:
    text = "%% if a or b\nyes {{x}}\n%% else\nno\n%% end\n%% each l\n{{n}}{{,}} {{x}}\n%% if not last\n-\n%% end\n%% end\n"
    rows = [{"n": 1, "last": False}, {"n": 2, "last": True}]
    assert render(text, {"a": False, "b": True, "x": 9, "l": rows}) == "yes 9\n1, 9\n-\n2 9\n"
    assert render(text, {"a": False, "b": False, "x": 9, "l": []}) == "no\n"


@pytest.mark.parametrize("text", ["%% if a\nx", "%% each l\nx", "%% what\n"])
def test_a_broken_template_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="template"):
        render(text, {"a": True, "l": []})


def test_a_name_that_nobody_gave_is_an_error() -> None:
    with pytest.raises(KeyError):
        render("{{nothing}}", {})


def test_comments_say_no_more_than_is_there() -> None:
    """What is printed for one mode says nothing of another's settings."""
    text = settings(find("lettuce"), facts("cluster"))[0].text
    assert not re.search("Sentinel(?!s know)", text)
