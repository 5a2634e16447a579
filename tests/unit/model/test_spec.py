from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.errors import SpecError
from redkeep.model.hostspec import HostSpec
from redkeep.model.spec import Spec, json_schema, load
from redkeep.model.specparts import EngineSpec, Passwords, SecretSource, Suppression

LOCAL = "hosts: [local]\n"
THREE = """\
hosts:
  - {name: a, ssh: root@203.0.113.1, private: 10.0.0.1, public: 203.0.113.1, zone: x/1}
  - {name: b, ssh: root@203.0.113.2, private: 10.0.0.2, public: 203.0.113.2, zone: x/2}
  - {name: c, ssh: root@203.0.113.3, private: 10.0.0.3, public: 203.0.113.3, zone: y/1}
"""


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load(text, "redkeep.yaml")
    return caught.value


class TestDefaults:
    def test_cluster_on_this_machine(self) -> None:
        spec = load("mode: cluster\n" + LOCAL)
        assert (spec.shards, spec.replicas, spec.nodes_total) == (3, 1, 6)
        assert (spec.engine.flavor, spec.engine.source) == ("valkey", "bundled")
        assert spec.is_local
        assert spec.hosts == (HostSpec(name="local", ssh="local"),)
        assert (spec.sentinels, spec.quorum) == (0, 0)
        assert spec.crash_failover
        assert (spec.persistence, spec.appendfsync, spec.eviction) == ("rdb", "everysec", "noeviction")
        assert spec.maxmemory is None

    def test_sentinel_on_hosts(self) -> None:
        spec = load("mode: sentinel\n" + THREE)
        assert (spec.shards, spec.replicas, spec.sentinels, spec.quorum) == (1, 2, 3, 2)
        assert (spec.engine.flavor, spec.engine.source) == ("redis", "package")
        assert not spec.is_local
        assert not spec.crash_failover

    def test_standalone(self) -> None:
        assert load("mode: standalone\n" + LOCAL).nodes_total == 1

    def test_host_word_alone(self) -> None:
        assert load("mode: standalone\nhosts: local\n") == load("mode: standalone\n" + LOCAL)

    @pytest.mark.parametrize(
        ("engine", "flavor", "source"),
        [
            ("{source: bundled}", "valkey", "bundled"),
            ("{flavor: valkey}", "valkey", "package"),
            ("{flavor: redis}", "redis", "package"),
            ("{source: tarball, path: redis.tar.gz}", "redis", "tarball"),
            ("", "redis", "package"),
        ],
    )
    def test_half_an_engine(self, engine: str, flavor: str, source: str) -> None:
        spec = load(f"mode: cluster\nengine: {engine}\n" + THREE)
        assert (spec.engine.flavor, spec.engine.source) == (flavor, source)

    def test_values_made_in_code_get_the_same(self) -> None:
        made = Spec(mode="cluster", hosts=(HostSpec(name="local"),))
        assert made == load("mode: cluster\n" + LOCAL)


class TestReading:
    def test_words_and_versions_stay_text(self) -> None:
        spec = load(
            "mode: cluster\nappendfsync: no\nengine: {version: 8.10}\nhosts: [{name: local, zone: 1}]\n"
        )
        assert spec.appendfsync == "no"
        assert spec.engine.version == "8.10"
        assert spec.hosts[0].zone == "1"

    def test_settings_become_text(self) -> None:
        settings = load(
            'mode: standalone\nsettings: {hz: 20, save: "900 1", lazyfree-lazy-expire: yes}\n' + LOCAL
        ).settings
        assert settings == {"hz": "20", "save": "900 1", "lazyfree-lazy-expire": "yes"}

    def test_ipv6_in_its_canonical_spelling(self) -> None:
        text = "mode: standalone\nhosts: [{name: a, ssh: 'root@[2001:db8::1]:22', private: 2001:0db8:0:0:0:0:0:1}]\n"
        host = load(text).hosts[0]
        assert (host.ssh_user, host.ssh_host, host.ssh_port) == ("root", "2001:db8::1", 22)
        assert (host.private, host.network_name) == ("2001:db8::1", "2001:db8::/48")

    @pytest.mark.parametrize(
        ("ssh", "parts"),
        [
            ("ops@203.0.113.21", ("ops", "203.0.113.21", None)),
            ("ops@gw.example.org:2222", ("ops", "gw.example.org", 2222)),
            ("my-alias", (None, "my-alias", None)),
            ("2001:db8::1", (None, "2001:db8::1", None)),
        ],
    )
    def test_ssh(self, ssh: str, parts: tuple[str | None, str, int | None]) -> None:
        host = HostSpec(name="a", ssh=ssh)
        assert (host.ssh_user, host.ssh_host, host.ssh_port) == parts

    def test_a_fingerprint_with_and_without_padding(self) -> None:
        for end in ("", "="):
            text = f"mode: standalone\nhosts: [{{name: a, fingerprint: 'SHA256:{'x' * 43}{end}'}}]"
            assert load(text).hosts[0].fingerprint == "SHA256:" + "x" * 43

    def test_ssh_defaults_to_the_name(self) -> None:
        assert HostSpec(name="sz-1").ssh == "sz-1"

    def test_networks(self) -> None:
        assert HostSpec(name="a", zone="aliyun/sz-a", private="10.0.0.1").network_name == "aliyun"
        assert HostSpec(name="a", zone="aliyun/sz-a", network="vpc-2").network_name == "vpc-2"
        assert HostSpec(name="a", private="10.7.3.1").network_name == "10.7.0.0/16"
        assert HostSpec(name="a").network_name == ""

    def test_equal_private_addresses_in_two_networks(self) -> None:
        text = "mode: standalone\nhosts: [{name: a, private: 10.0.0.1, zone: x}, {name: b, private: 10.0.0.1, zone: y}]\n"
        assert len(load(text).hosts) == 2

    @pytest.mark.parametrize(
        ("mode", "failover", "detection", "timeout"),
        [
            ("cluster", "fast", 2_000, 10_000),
            ("sentinel", "fast", 1_000, 10_000),
            ("cluster", "balanced", 5_000, 15_000),
            ("sentinel", "patient", 30_000, 90_000),
            ("cluster", "700", 700, 10_000),
        ],
    )
    def test_failover(self, mode: str, failover: str, detection: int, timeout: int) -> None:
        timing = load(f"mode: {mode}\nfailover: {failover}\n" + LOCAL).timing
        assert (timing.detection_ms, timing.failover_timeout_ms) == (detection, timeout)

    def test_auth_none(self) -> None:
        assert load("mode: standalone\nauth: none\nallow_from: [10.0.0.0/16]\n" + LOCAL).auth == "none"

    def test_frozen(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            load("mode: standalone\n" + LOCAL).port = 1


#: text, line, key, what, next
BAD = [
    ("", 1, "", "the file is empty", "write at least mode and hosts"),
    ("# only a comment\n", 1, "", "the file is empty", ""),
    ("just words\n", 1, "", "not a mapping", ""),
    ("mode: cluster\n", 1, "hosts", "hosts is missing", "add hosts"),
    (LOCAL, 1, "mode", "mode is missing", "add mode"),
    ("mode: cluster\nhosts: [local\n", 2, "", "not valid YAML", "check indentation, quotes and brackets"),
    ("mode: cluster\n\tport: 1\n" + LOCAL, 2, "", "not valid YAML", "indent with spaces, not with tabs"),
    ("# größer\nmode: a\x01\n", 2, "", "not valid YAML", ""),
    ("mode: cluster\n---\nmode: cluster\n", 2, "", "not valid YAML", ""),
    ("[" * 5000, 1, "", "not valid YAML", ""),
    ("a: " + "[" * 30 + "]" * 30, 1, "", "nested too deeply", ""),
    (
        "mode: cluster\nmode: cluster\n" + LOCAL,
        2,
        "mode",
        "duplicate key: mode is already on line 1",
        "keep one",
    ),
    ("mode: standalone\nhosts: [{name: a, name: b}]", 2, "hosts[0].name", "duplicate key", ""),
    ("mode: &m cluster\nname: *m\n" + LOCAL, 2, "name", "aliases", "write the value out"),
    ("mode: cluster\nname: !!python/name:os.system x\n" + LOCAL, 2, "name", "YAML tags are not used", ""),
    ("mode: cluster\nreplica: 1\n" + LOCAL, 2, "replica", "unknown key: replica", "did you mean replicas?"),
    ("mode: cluster\nxyzzy: 1\n" + LOCAL, 2, "xyzzy", "unknown key: xyzzy", "redkeep schema"),
    (
        "mode: cluster\nengine:\n  flavour: redis\n" + LOCAL,
        3,
        "engine.flavour",
        "unknown key",
        "did you mean flavor?",
    ),
    ("mode: cluster\nhosts:\n - name: a\n   privat: 1\n", 4, "hosts[0].privat", "unknown key", "private?"),
    ("mode: clutser\n" + LOCAL, 1, "mode", "not a value of mode: clutser", "standalone, sentinel or cluster"),
    ("mode: cluster\n\nshards: three\n" + LOCAL, 3, "shards", "not a whole number: three", ""),
    ("mode: cluster\nshards: 2\n" + LOCAL, 2, "shards", "needs 3 shards to elect", "at least 3"),
    ("mode: standalone\nshards: 2\n" + LOCAL, 2, "shards", "more than one shard needs mode: cluster", ""),
    ("mode: sentinel\nreplicas: 0\n" + LOCAL, 2, "replicas", "nothing to promote", "at least 1"),
    ("mode: sentinel\nsentinels: 0\n" + LOCAL, 2, "sentinels", "needs Sentinels", "write 3"),
    (
        "mode: cluster\naccept_risk: yes\n" + LOCAL,
        2,
        "accept_risk",
        "not true or false: yes",
        "true or false",
    ),
    ("mode: cluster\ntls: maybe\n" + LOCAL, 2, "tls", "not a value of tls: maybe", "auto, true or false"),
    ("mode: cluster\nport: 80\n" + LOCAL, 2, "port", "out of range: 80", "at least 1024"),
    ("mode: cluster\nport: 60000\n" + LOCAL, 2, "port", "out of range: 60000", "at most 55535"),
    ("mode: cluster\nport: 55534\n" + LOCAL, 2, "port", "ports end at 65535", "a lower port"),
    ("mode: cluster\nname: ../etc\n" + LOCAL, 2, "name", "not a usable name: ../etc", "lower-case letter"),
    ("mode: cluster\nname: shop@x.service\n" + LOCAL, 2, "name", "not a usable name", ""),
    ("mode: cluster\nname: " + "a" * 32 + "\n" + LOCAL, 2, "name", "not a usable name", ""),
    ('mode: cluster\nname: "shop\\n"\n' + LOCAL, 2, "name", "not a usable name", ""),
    ("mode: cluster\nmaxmemory: 2 gigs\n" + LOCAL, 2, "maxmemory", "not a size: 2 gigs", "2GiB"),
    ("mode: cluster\nmaxmemory: 2\n" + LOCAL, 2, "maxmemory", "too little memory", "unit may be missing"),
    (
        "mode: cluster\nfailover: quick\n" + LOCAL,
        2,
        "failover",
        "not a value of failover: quick",
        "milliseconds",
    ),
    ("mode: cluster\nmaxmemory: 9999TB\n" + LOCAL, 2, "maxmemory", "more memory than any machine has", ""),
    (
        "mode: cluster\nsettings:\n  slave-priority: 1\n  replica-priority: 2\n" + LOCAL,
        3,
        "settings.slave-priority",
        "an old name of replica-priority",
        "keep one",
    ),
    ("mode: cluster\nfailover: 5\n" + LOCAL, 2, "failover", "not a value of failover: 5", "from 200"),
    ("mode: cluster\nallow_from: 10.0.0.1\n" + LOCAL, 2, "allow_from", "not a list: 10.0.0.1", "a list"),
    (
        "mode: cluster\nallow_from:\n - 10.0.0.1\n - 10.0.0.5/8\n" + LOCAL,
        4,
        "allow_from[1]",
        "10.0.0.5/8",
        "10.0.0.0/8",
    ),
    (
        'mode: cluster\nport: "7000"\n' + LOCAL,
        2,
        "port",
        "not a whole number: 7000",
        "7000 as a plain number",
    ),
    ("mode: cluster\nport: 07_000.0\n" + LOCAL, 2, "port", "not a whole number", "write 7000"),
    ('mode: cluster\ntls: "true"\n' + LOCAL, 2, "tls", "not a value of tls", "without quotes"),
    ('mode: cluster\nadopted: "true"\n' + LOCAL, 2, "adopted", "not true or false", "true without quotes"),
    ("mode: cluster\nengine: bundled\n" + LOCAL, 2, "engine", "not a mapping", "engine: {source: bundled}"),
    ("mode: cluster\nengine: valkey\n" + LOCAL, 2, "engine", "not a mapping", "engine: {flavor: valkey}"),
    ("mode: cluster\nallow_from: 10.0.0.1\n" + LOCAL, 2, "allow_from", "not a list", "[10.0.0.1]"),
    ("mode: cluster\nallow_from: [0.0.0.0]\n" + LOCAL, 2, "allow_from[0]", "nobody has", "0.0.0.0/0"),
    ("mode: cluster\nallow_from: ['fe80::1%eth0']\n" + LOCAL, 2, "allow_from[0]", "not an IP address", ""),
    (
        "mode: cluster\nallow_from: [0.0.0.0/1, 128.0.0.0/1]\nauth: none\n" + LOCAL,
        3,
        "auth",
        "lets everyone in",
        "",
    ),
    ("mode: cluster\nhosts:\n - {name: a, ssh: 'r@b:99999'}\n", 3, "hosts[0].ssh", "not a port: 99999", ""),
    ("mode: cluster\nhosts:\n - {name: a, ssh: 'r@b:0'}\n", 3, "hosts[0].ssh", "not a port: 0", ""),
    (
        "mode: cluster\nhosts:\n - {name: a, private: 'fe80::1'}\n",
        3,
        "hosts[0].private",
        "not the address of a host",
        "",
    ),
    ("mode: cluster\nauth: none\n" + LOCAL, 2, "auth", "lets everyone in", "allow_from"),
    ("mode: cluster\nallow_from: [0.0.0.0/0]\nauth: none\n" + LOCAL, 3, "auth", "lets everyone in", ""),
    (
        "mode: cluster\nclients: public\nallow_from: [1.1.1.1]\nauth: none\n" + THREE,
        4,
        "auth",
        "refused with clients: public",
        "",
    ),
    ("mode: cluster\nengine: {source: tarball}\n" + THREE, 2, "engine", "needs a path", "add path"),
    ("mode: cluster\nengine:\n  path: x\n" + THREE, 3, "engine.path", "has no path", "remove it"),
    (
        "mode: cluster\nengine: {flavor: redis, source: bundled}\n" + THREE,
        2,
        "engine.flavor",
        "is Valkey",
        "",
    ),
    ("mode: cluster\nengine: {version: ../x}\n" + THREE, 2, "engine.version", "not a version", ""),
    (
        "mode: cluster\npasswords: {app: hunter2}\n" + LOCAL,
        2,
        "passwords.app",
        "never stands in this file",
        "env: NAME",
    ),
    ("mode: cluster\npasswords: hunter2\n" + LOCAL, 2, "passwords", "not a mapping", ""),
    (
        "mode: cluster\npasswords:\n  app: {env: $X}\n" + LOCAL,
        3,
        "passwords.app.env",
        "environment variable",
        "without $",
    ),
    (
        "mode: cluster\npasswords: {app: {env: A, command: b}}\n" + LOCAL,
        2,
        "passwords.app",
        "never stands",
        "",
    ),
    (
        "mode: cluster\nsettings:\n  hz: 5\n  port: 3\n" + LOCAL,
        4,
        "settings.port",
        "port is written by Redkeep",
        "key port",
    ),
    (
        "mode: cluster\nsettings: {cluster-node-timeout: 3}\n" + LOCAL,
        2,
        "settings.cluster-node-timeout",
        "written by",
        "",
    ),
    ("mode: cluster\nsettings: {hz: true}\n" + LOCAL, 2, "settings.hz", "not a server's value", "yes or no"),
    ('mode: cluster\nsettings: {hz: "1\\nport 1"}\n' + LOCAL, 2, "settings.hz", "on one line", ""),
    (
        'mode: cluster\nsettings: {"hz 1": 1}\n' + LOCAL,
        2,
        "settings.hz 1",
        "not the name of a server setting",
        "",
    ),
    ("mode: cluster\nsettings: [hz]\n" + LOCAL, 2, "settings", "not a mapping", ""),
    (
        'mode: cluster\npersistence: none\nsettings: {save: "1 1"}\n' + LOCAL,
        3,
        "settings.save",
        "contradicts",
        "",
    ),
    ("mode: cluster\nsuppress: [{rule: x}]\n" + LOCAL, 2, "suppress[0].because", "because is missing", ""),
    ("mode: cluster\nhosts: []\n", 2, "hosts", "no hosts", "[local]"),
    ("mode: cluster\nhosts: [local, {name: a}]\n", 2, "hosts[0]", "local stands beside", "alone"),
    (
        "mode: cluster\nhosts:\n - a@1.2.3.4\n",
        3,
        "hosts[0]",
        "a host needs a name: a@1.2.3.4",
        "name: h1, ssh: a@1.2.3.4",
    ),
    ("mode: cluster\nhosts:\n - {ssh: a}\n", 3, "hosts[0].name", "name is missing", ""),
    ("mode: cluster\nhosts:\n - {name: a/b}\n", 3, "hosts[0].name", "not a usable name: a/b", ""),
    (
        "mode: cluster\nhosts:\n - {name: a, ssh: -oProxyCommand=x}\n",
        3,
        "hosts[0].ssh",
        "not an SSH destination",
        "",
    ),
    ("mode: cluster\nhosts:\n - {name: a, ssh: 'a@b c'}\n", 3, "hosts[0].ssh", "not an SSH destination", ""),
    (
        "mode: cluster\nhosts:\n - name: a\n   public: 0.0.0.0\n",
        4,
        "hosts[0].public",
        "not the address of a host",
        "",
    ),
    (
        "mode: cluster\nhosts:\n - {name: a, fingerprint: 'MD5:00'}\n",
        3,
        "hosts[0].fingerprint",
        "not a fingerprint",
        "",
    ),
    ("mode: cluster\nhosts:\n - {name: a, zone: a/b/c}\n", 3, "hosts[0].zone", "not a zone", ""),
    (
        "mode: standalone\nhosts:\n - {name: a, private: 127.0.0.1}\n",
        3,
        "hosts[0].private",
        "no other host",
        "",
    ),
    (
        "mode: standalone\nhosts:\n - {name: a}\n - {name: a, ssh: b}\n",
        4,
        "hosts[1].name",
        "already name of hosts[0]",
        "",
    ),
    (
        "mode: standalone\nhosts:\n - {name: a, ssh: x}\n - {name: b, ssh: x}\n",
        4,
        "hosts[1].ssh",
        "already ssh of",
        "",
    ),
    (
        "mode: standalone\nhosts:\n - {name: a, ssh: root@1.2.3.4}\n - {name: b, ssh: 'ops@1.2.3.4:22'}\n",
        4,
        "hosts[1].ssh",
        "ops@1.2.3.4:22 is already ssh of hosts[0]",
        "list it once",
    ),
    (
        "mode: standalone\nhosts:\n - {name: a, private: 10.0.0.1}\n - {name: b, private: 10.0.0.1}\n",
        4,
        "hosts[1].private",
        "10.0.0.1 is already private of hosts[0]",
        "its own",
    ),
    (
        "mode: standalone\nhosts:\n - {name: a, public: 1.1.1.1}\n - {name: b, public: 1.1.1.1}\n",
        4,
        "hosts[1].public",
        "already public of hosts[0]",
        "",
    ),
    (
        "mode: standalone\nclients: public\nhosts:\n - {name: a}\n",
        4,
        "hosts[0]",
        "and a has none",
        "add public",
    ),
    (
        "mode: cluster\nhosts:\n - {name: a}\n",
        2,
        "hosts",
        "too few hosts: a primary and its replicas need 2",
        "replicas: 0",
    ),
    ("mode: sentinel\nsentinels: 5\n" + THREE, 3, "hosts", "too few hosts: 5 Sentinels", "sentinels: 3"),
    (
        "mode: sentinel\nport: 26378\nsentinel_port: 26379\n" + LOCAL,
        3,
        "sentinel_port",
        "two servers on port 26379: port takes 26378-26380, sentinel_port takes 26379-26381",
        "further apart",
    ),
]


@pytest.mark.parametrize(("text", "line", "key", "what", "next"), BAD)
def test_bad_input(text: str, line: int, key: str, what: str, next: str) -> None:
    error = refused(text)
    assert error.where == (f"redkeep.yaml:{line}: {key}" if key else f"redkeep.yaml:{line}")
    assert what in error.what
    assert next in error.next
    assert "\n" not in error.what
    assert "\nalso " not in error.next


def test_host_with_bad_address_as_the_message_stands() -> None:
    error = refused("mode: cluster\n\n" + THREE.replace("10.0.0.3", "10.0.0"))
    assert str(error) == (
        "not an IP address: 10.0.0\nredkeep.yaml:6: hosts[2].private\nwrite an IPv4 or IPv6 address, such as 10.0.0.11"
    )


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    error = refused("replica: 1\nmode: cluster\nport: 80\nmode: cluster\nhosts:\n  - {name: A}\n")
    assert error.where == "redkeep.yaml:1: replica"
    also = [line.split(": ")[0:2] for line in error.next.splitlines()[1:]]
    assert also == [
        ["also redkeep.yaml:3", "port"],
        ["also redkeep.yaml:4", "mode"],
        ["also redkeep.yaml:6", "hosts[0].name"],
    ]


def test_no_password_is_repeated() -> None:
    for text in ("passwords: {app: hunter2}", "passwords: hunter2", "passwords: {app: {env: hunter2-x}}"):
        assert "hunter2" not in str(refused(f"mode: cluster\n{text}\n{LOCAL}"))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        load(text)
    except SpecError as error:
        assert re.match(r"redkeep\.yaml:\d+", error.where)


@given(
    st.dictionaries(
        st.sampled_from(list(Spec.model_fields)), st.sampled_from(["[]", "{}", "x", "1", "", "[{}]"])
    )
)
def test_any_shape_is_read_or_refused(keys: dict[str, str]) -> None:
    try:
        load("".join(f"{key}: {value}\n" for key, value in keys.items()))
    except SpecError as error:
        assert error.what


class TestExample:
    def test_is_valid(self, root: Path) -> None:
        spec = load((root / "docs/redkeep.example.yaml").read_text(), "redkeep.example.yaml")
        assert (spec.name, spec.mode, len(spec.hosts)) == ("shop", "cluster", 3)

    def test_shows_every_key(self, root: Path) -> None:
        text = (root / "docs/redkeep.example.yaml").read_text()
        for model in (Spec, EngineSpec, HostSpec, Passwords, SecretSource, Suppression):
            for key in model.model_fields:
                assert re.search(rf"\b{key}: ", text) or re.search(rf"^{key}:$", text, re.M), key


class TestSchema:
    def test_is_draft_2020_12_and_describes_every_key(self) -> None:
        schema = json_schema()
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["required"] == ["mode", "hosts"]
        for name, parts in {"": schema, **schema["$defs"]}.items():
            assert parts["additionalProperties"] is False
            for key, value in parts["properties"].items():
                assert value.get("description"), f"{name}.{key}"

    def test_defaults_that_depend_on_others_are_not_stated(self) -> None:
        properties = json_schema()["properties"]
        assert [
            key for key in ("engine", "shards", "replicas", "sentinels") if "default" in properties[key]
        ] == []

    def test_accepts_what_people_write(self) -> None:
        properties = json_schema()["properties"]
        assert {"const": "local"} in properties["hosts"]["items"]["anyOf"]
        assert {kind["type"] for kind in properties["maxmemory"]["anyOf"]} == {"string", "integer", "null"}
