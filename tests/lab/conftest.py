"""Fixtures of the lab tests. They skip, and say why, where the machine cannot hold a lab."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from . import DEFAULT_HOSTS, Lab, LabError, LabUnavailable, why_unavailable
from .bases import is_prepared

_HERE = Path(__file__).parent


class LabFactory(Protocol):
    """Starts a lab that ends with the fixture's scope."""

    def __call__(
        self, hosts: Mapping[str, str] | Iterable[str] = DEFAULT_HOSTS, *, layers: Sequence[str] = ()
    ) -> Lab: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first_run = not is_prepared()
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)
            # Client libraries whose server was cut off leave sockets to the garbage collector, whenever that comes.
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
            if first_run:  # whichever test comes first builds the images
                item.add_marker(pytest.mark.timeout(1800))


def pytest_sessionfinish() -> None:
    """What they left until the end is collected before pytest does that, and judges it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def lab_factory() -> Iterator[LabFactory]:
    """Start labs that last until the end of the session: for tests that only look, or that clean up."""
    yield from _factory()


@pytest.fixture
def fresh_lab() -> Iterator[LabFactory]:
    """Start labs that last for one test: `lab = fresh_lab(["a11", "a12"])`."""
    yield from _factory()


@pytest.fixture(scope="session")
def lab(lab_factory: LabFactory) -> Lab:
    """The standard lab of seven hosts, shared by the session: leave it as you found it."""
    return lab_factory()


def _factory() -> Iterator[LabFactory]:
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as running:

        def start(
            hosts: Mapping[str, str] | Iterable[str] = DEFAULT_HOSTS, *, layers: Sequence[str] = ()
        ) -> Lab:
            try:
                try:
                    return running.enter_context(Lab(hosts, layers=layers))
                except LabError:  # seven hosts that boot beside a busy neighbour: once more
                    return running.enter_context(Lab(hosts, layers=layers))
            except LabUnavailable as reason:
                pytest.skip(str(reason))

        yield start
