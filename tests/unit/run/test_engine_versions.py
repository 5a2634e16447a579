"""Which version a pin means: of a package on offer, and of a server that says its own."""

from __future__ import annotations

import pytest

from redkeep.model.engine import Engine, EngineWant, Version
from redkeep.run.engines.common import fits, matches

DEB12 = "5:7.0.15-1~deb12u7"


@pytest.mark.parametrize(
    ("pin", "offer", "same"),
    [
        ("7", DEB12, True),
        ("7.0", DEB12, True),
        ("7.0.15", DEB12, True),
        ("7.0.1", DEB12, False),
        ("5:7.0.15", DEB12, True),
        (DEB12, DEB12, True),
        ("7.0.15-1~deb12u7", DEB12, True),
        # a release with security fixes stands beside the one that was named
        (DEB12, "5:7.0.15-1~deb12u10", False),
        ("7.2.4-1.el9", "7.2.4-2.el9", False),
        # sources that the distribution repacked
        ("8.1", "8.1.1+dfsg1-3+deb13u1", True),
        ("8.1.1", "8.1.1+dfsg1-3+deb13u1", True),
        ("8.1.1+dfsg1-3+deb13u1", "8.1.1+dfsg1-3+deb13u1", True),
        ("8.1.1+dfsg1-3+deb13u1", "8.1.1+dfsg1-3+deb13u2", False),
        ("8.1.1", "8.1.10+dfsg1-1", False),
    ],
)
def test_pins_and_offers(pin: str, offer: str, same: bool) -> None:
    assert matches(pin, offer) is same


@pytest.mark.parametrize(
    ("pin", "version", "same"),
    [
        (DEB12, Version(7, 0, 15), True),
        (DEB12, Version(7, 0, 14), False),
        ("8.1.1+dfsg1-3+deb13u1", Version(8, 1, 1), True),
        ("8.1.1+dfsg1", Version(8, 1, 1), True),
        ("8.1", Version(8, 1, 1), True),
        ("8.1", Version(8, 10, 1), False),
        ("9", Version(8, 1, 1), False),
    ],
)
def test_pins_and_what_a_server_says(pin: str, version: Version, same: bool) -> None:
    assert fits(EngineWant("valkey", "package", version=pin), Engine("valkey", version)) is same
