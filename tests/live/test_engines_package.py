"""The distribution's package on one's own machine. The lab has it on hosts."""

from __future__ import annotations

import shutil

import pytest

from redkeep.errors import EngineError
from redkeep.hosts.local import LocalHost
from redkeep.model.engine import EngineWant
from redkeep.run import engines
from tests.live.engine_help import facts_of

pytestmark = pytest.mark.live


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt")
async def test_without_root_one_is_told_what_to_install() -> None:
    host = LocalHost()
    facts = await facts_of(host, root=False)
    with pytest.raises(EngineError) as refused:
        await engines.install(host, facts, EngineWant("redis", "package", version="1.2"), print)
    assert "is not worked on as root" in refused.value.what
    assert "apt-get install -y redis-server redis-tools, then apply again" in refused.value.next
