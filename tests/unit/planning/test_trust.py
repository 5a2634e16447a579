"""Whom a password may be shown."""

from __future__ import annotations

import pytest

from redkeep.planning.evidence.trust import Peer, Policy, is_loopback, is_public

NAMED = Policy(frozenset({"10.0.0.11", "203.0.113.11", "127.0.0.1", "fd00:1:2:3::11"}))
DISCOVERED = "--trust-discovered"
CLEAR = "--allow-clear-text"


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (Peer("10.0.0.11", named=True), ""),
        (Peer("127.0.0.1", named=True), ""),
        (Peer("203.0.113.11", named=True), CLEAR),
        (Peer("203.0.113.11", named=True, encrypted=True), ""),
        # the same machine, another port
        (Peer("10.0.0.11", vouched=True), ""),
        (Peer("10.0.0.11"), DISCOVERED),
        # neighbours in a private network
        (Peer("10.0.0.12", vouched=True), ""),
        (Peer("10.0.0.12"), DISCOVERED),
        (Peer("10.0.1.12", vouched=True), DISCOVERED),
        (Peer("fd00:1:2:3::12", vouched=True), ""),
        (Peer("fd00:1:2:4::12", vouched=True), DISCOVERED),
        # neighbours in public are strangers, and so is another loopback address
        (Peer("203.0.113.12", vouched=True, encrypted=True), DISCOVERED),
        (Peer("127.0.0.2", vouched=True), DISCOVERED),
        # our own CA made its certificate
        (Peer("203.0.113.12", encrypted=True, own_ca=True), ""),
        (Peer("203.0.113.12", own_ca=True), DISCOVERED),
    ],
)
def test_policy(peer: Peer, why: str) -> None:
    withheld = NAMED.withheld(peer)
    assert (why in withheld) if why else withheld == ""


def test_what_the_user_may_add() -> None:
    stranger = Peer("203.0.113.12")
    assert CLEAR in Policy(trust_discovered=True).withheld(stranger)
    assert DISCOVERED in Policy(allow_clear_text=True).withheld(stranger)
    assert Policy(trust_discovered=True, allow_clear_text=True).withheld(stranger) == ""


@pytest.mark.parametrize("address", ["", "?", "localhost", "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)
    assert not is_public(address)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("fe80::1", False),
        ("2001:db8::1", True),
        ("x", False),
    ],
)
def test_public(address: str, public: bool) -> None:
    assert is_public(address) == public
    assert not is_loopback(address)
