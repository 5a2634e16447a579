"""What is refused although each part of it could be deployed."""

from __future__ import annotations

from typing import Any

import pytest

from redkeep.errors import RefusedError
from redkeep.model.engine import Engine, Version
from redkeep.model.spec import Spec
from redkeep.planning.placing.addresses import addresses
from redkeep.planning.placing.placement import place
from redkeep.planning.placing.safety import check_passwordless
from redkeep.planning.placing.secgroup import firewall

BUNDLED = Engine("valkey", Version(9, 1, 2), tls=False)


def spec_of(networks: str, private: str = "10.0.0", **keys: Any) -> Spec:
    hosts = tuple(
        {"name": f"h{i}", "private": f"{private}.{i}", "public": f"203.0.113.{i}", "network": network}
        for i, network in enumerate(networks, start=1)
    )
    return Spec.model_validate({"mode": "sentinel", "hosts": hosts, **keys})


def check(spec: Spec) -> None:
    check_passwordless(spec, addresses(spec, None, BUNDLED))


OPEN: dict[str, Any] = {"auth": "none", "allow_from": ("10.0.0.0/8",)}


def test_no_password_inside_one_network() -> None:
    check(spec_of("aaa", **OPEN))
    check(spec_of("aaa", private="100.64.3", **OPEN))


def test_no_password_across_networks() -> None:
    """Applications are inside, and still everybody uses public addresses."""
    with pytest.raises(RefusedError) as refused:
        check(spec_of("aab", **OPEN))
    assert "h1 (203.0.113.1)" in refused.value.where
    check(spec_of("aab", allow_from=("10.0.0.0/8",)))


def test_no_password_where_the_network_is_a_public_one() -> None:
    with pytest.raises(RefusedError):
        check(spec_of("aaa", private="198.51.100", **OPEN))


def test_this_machine_without_an_address_is_nobody_elses() -> None:
    check(Spec.model_validate({"mode": "standalone", "hosts": ("local",), **OPEN}))


@pytest.mark.parametrize(
    ("host", "closed"),
    [("local", False), ({"name": "me", "ssh": "local", "private": "10.0.0.7"}, True)],
)
def test_this_machine_is_guarded_where_others_reach_it(host: Any, closed: bool) -> None:
    spec = Spec.model_validate({"mode": "standalone", "hosts": (host,), "allow_from": ("10.0.0.9",)})
    rules = firewall(spec, place(spec), addresses(spec, None, BUNDLED), spec.hosts[0].name, tls=False)
    assert ("10.0.0.9" in rules) is closed
