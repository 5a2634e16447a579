"""``rescue runbook``: both clouds and languages, commands that the clouds' own tools know, what this disk needs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redkeep.usecases.rebuilding import secgroup
from redkeep.usecases.rescue_runbook import CLOUDS, Disk, Ids, compose, described
from tests.cli import Redkeep
from tests.rescue import disks, victim
from tests.rescue.disks import MIB

API: Any = json.loads((victim.DATA / "cloud-api.json").read_text())
#: Of the tools themselves, for any action.
GLOBAL = {
    "tencent": {"region", "filter", "output", "waiter"},
    "alibaba": {"region", "output", "waiter"},
}
IDS = Ids("ap-guangzhou", "ap-guangzhou-3", "ins-1", "disk-1")
ORDER = [
    "prepare",
    "look",
    "snapshot",
    "isolate",
    "stop",
    "copy",
    "image",
    "helper",
    "disk",
    "attach",
    "verify",
    "read",
    "detach",
    "reinstall",
    "reattach",
    "finish",
    "rotate",
]


@pytest.fixture
def run(tmp_path: Path) -> Redkeep:
    return Redkeep(tmp_path, environment={"LC_ALL": "C.UTF-8"})


@pytest.mark.parametrize("cloud", CLOUDS)
def test_both_languages_have_the_same_steps_and_commands(cloud: str) -> None:
    for disk in (Disk(), described(INSPECTED)):
        english, chinese = (compose(cloud, lang, disk, IDS) for lang in ("en", "zh"))
        assert [step.id for step in english.steps] == ORDER
        for one, other in zip(english.steps, chinese.steps, strict=True):
            assert [(p.name, p.run) for p in one.parts] == [(p.name, p.run) for p in other.parts], one.id
            assert [bool(p.shows) for p in one.parts] == [bool(p.shows) for p in other.parts], one.id
        assert CLOUDS[cloud]["zh"] in chinese.title
        text = json.dumps(chinese.as_json(), ensure_ascii=False)
        assert not re.search(
            r"\{(?:region|instance|disk|zone|size|size_bytes|\w+_gib|unreadable|cloud)\}", text
        )


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_command_line_is_one_of_a_shell(cloud: str) -> None:
    every = [p.run for step in compose(cloud, "en", Disk(), IDS).steps for p in step.parts if p.run]
    assert len(every) == 29
    for run in [*every, "\n".join(every), secgroup.tencent(""), secgroup.alibaba("2001:db8::/64")]:
        done = subprocess.run(["sh", "-n"], input=run, text=True, capture_output=True)
        assert done.returncode == 0, f"{run}\n{done.stderr}"


def calls(text: str, tool: str) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Each call of the tool: service and action, and its options with the words behind them."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        for match in re.finditer(rf"{tool} (\w+) ([A-Z]\w+)([^\n]*)", line):
            rest = re.split(r" \| |; done|; \}", match[3])[0]
            # "$(date ...)" is one word, and the closing bracket of $(tool ...) none
            rest = re.sub(r"\$\(date [^)]*\)", "DATE", rest).rstrip()
            if f"$({tool}" in line[: match.start() + 2] and rest.endswith(")"):
                rest = rest[:-1]
            words = shlex.split(rest)
            options: list[tuple[str, list[str]]] = []
            for word in words:
                if word.startswith("--"):
                    options.append((word[2:], []))
                elif options:
                    options[-1][1].append(word)
            yield f"{match[1]} {match[2]}", options


def texts_of(cloud: str) -> str:
    runs = [p.run for step in compose(cloud, "en", Disk(), IDS).steps for p in step.parts if p.run]
    group = {"tencent": secgroup.tencent, "alibaba": secgroup.alibaba}[cloud]
    return "\n".join([*runs, group("203.0.113.7"), group("2001:db8::1"), group("")])


def test_tencents_tool_knows_every_action_and_parameter() -> None:
    seen = set()
    for action, options in calls(texts_of("tencent"), "tccli"):
        seen.add(action)
        known = API["tencent"][action]
        for name, words in options:
            assert name in known or name in GLOBAL["tencent"], f"{action} --{name}"
            if name in known:
                assert len(words) == 1, f"{action} --{name} {words}"
                _require_fields(known[name], words[0], f"{action} --{name}")
        missing = {n for n, p in known.items() if p["required"]} - {name for name, _ in options}
        assert not missing, f"{action} lacks {missing}"
    assert seen == set(API["tencent"])


def _require_fields(known: Any, word: str, where: str) -> None:
    """Objects in JSON have the fields that the model names."""
    if word[:1] not in "{[":
        return
    found = json.loads(word)

    def check(value: Any, model: Any) -> None:
        if isinstance(value, list):
            for one in value:
                check(one, model)
        elif isinstance(value, dict):
            for key, below in value.items():
                assert key in model.get("fields", {}), f"{where}: {key}"
                check(below, model["fields"][key])

    check(found, known)


def test_alibabas_api_knows_every_action_and_parameter() -> None:
    seen = set()
    for action, options in calls(texts_of("alibaba"), "aliyun"):
        seen.add(action)
        for name, _ in options:
            assert re.sub(r"\.\d+", ".N", name) in API["alibaba"][action] or name in GLOBAL["alibaba"], (
                f"{action} --{name}"
            )
    assert seen == set(API["alibaba"])


def test_the_last_steps_destroy_what_is_billed() -> None:
    for cloud, words in {
        "tencent": ("TerminateInstances", "TerminateDisks", "DeleteSnapshots", "DeleteImages"),
        "alibaba": ("DeleteInstance", "DeleteDisk", "DeleteSnapshot", "DeleteImage"),
    }.items():
        runbook = compose(cloud, "en", Disk(), IDS)
        ends = next(step for step in runbook.steps if step.id == "finish")
        text = "\n".join(part.run for part in ends.parts)
        assert all(word in text for word in words)
        for variable in ("HELPER", "EVIDENCE", "WORK", "FIRST", "SNAPSHOT", "IMAGE", "GROUP", "NOTHING"):
            assert f'"${variable}"' in text or f'\\"${variable}\\"' in text, variable


INSPECTED: dict[str, Any] = {
    "partitions": [
        {"name": "1", "begin_bytes": 1 << 20, "size_bytes": 1 << 30, "kind": "xfs", "mounted_at": "/boot"},
        {"name": "2", "begin_bytes": 1025 << 20, "size_bytes": 39 << 30, "kind": "lvm", "mounted_at": ""},
        {
            "name": "data/x",
            "begin_bytes": 0,
            "size_bytes": 10 << 30,
            "kind": "btrfs",
            "note": "1 of 2 disks of the volume group are not here",
        },
    ],
    "notes": ["partition 1 was not unmounted cleanly; its journal is not replayed"],
    "system": {"bytes": 12 << 30},
}


def test_what_this_very_disk_needs() -> None:
    disk = described(INSPECTED)
    assert disk.size == (1025 << 20) + (39 << 30)
    assert (disk.gib, disk.work_gib) == (41, 40)
    assert disk.traits == {"lvm", "xfs", "unclean", "missing", "unreadable"}
    document = compose("alibaba", "en", disk, IDS).as_json()
    steps = {step["id"]: step for step in document["steps"]}
    assert "--Size 41" in steps["disk"]["commands"][0]["run"]
    assert "--Size 40" in steps["disk"]["commands"][0]["run"]
    assert "data/x: btrfs" in steps["verify"]["text"]
    assert "nouuid" in steps["verify"]["text"]
    assert str(disk.size) in steps["verify"]["commands"][0]["shows"]
    assert "disk of its volume group is missing" in steps["look"]["text"]


@pytest.mark.parametrize(
    "nonsense", [{}, {"partitions": [1, {"size_bytes": "x", "begin_bytes": -1}], "system": {}}]
)
def test_what_is_not_as_it_should_be_counts_as_unknown(nonsense: dict[str, Any]) -> None:
    assert compose("tencent", "zh", described(nonsense), IDS).disk.size == 0


def test_from_an_image_and_from_the_inspection_of_it(run: Redkeep, tmp_path: Path) -> None:
    root = victim.clean(tmp_path / "root")
    raw = disks.partitioned(tmp_path / "raw", ("83", disks.ext4(root, tmp_path / "part", 64 * MIB)))
    image = disks.qcow2(raw, tmp_path / "disk.qcow2")
    document = run("rescue", "runbook", str(image), "--cloud", "tencent", "--json").ok().json
    assert document["disk"]["size_bytes"] == 65 * MIB
    assert document["disk"]["partitions"] == ["1: ext4, 64.0 MiB, /"]
    (tmp_path / "inspect.json").write_text(run("rescue", "inspect", str(image), "--json").ok().stdout)
    told = run("rescue", "runbook", "inspect.json", "--cloud", "alibaba", "--lang", "zh").ok()
    assert "1: ext4, 64.0 MiB, /" in told.stdout
    assert "阿里云" in told.stdout
    assert (
        run("rescue", "runbook", "--cloud", "tencent", env={"LC_ALL": "zh_CN.UTF-8"})
        .ok()
        .stdout.startswith("# 从")
    )


def test_names_go_into_the_commands_and_nothing_else_does(run: Redkeep) -> None:
    told = run(
        "rescue", "runbook", "--cloud", "tencent", "--region", "ap-beijing", "--instance", "ins-0a1b"
    ).ok()
    assert "REGION=ap-beijing\nINSTANCE=ins-0a1b\n" in told.stdout
    for option in ("--region", "--zone", "--instance", "--disk"):
        run("rescue", "runbook", "--cloud", "tencent", option, "x; rm -rf /").error(2, option)


def test_wrong_words_and_files(run: Redkeep, tmp_path: Path) -> None:
    run("rescue", "runbook").error(2, "--cloud", "tencent, alibaba")
    run("rescue", "runbook", "--cloud", "aws").error(2, "aws")
    run("rescue", "runbook", "--cloud", "tencent", "--lang", "fr").error(2, "fr")
    run("rescue", "runbook", "--cloud", "tencent", "nothing.json").error(2, "cannot be read")
    run("rescue", "runbook", "--cloud", "tencent", "nothing.img").error(2)
    for text in ("no json", "[]", '{"partitions": 1}', "[" * 100_000):
        (tmp_path / "other.json").write_text(text)
        run("rescue", "runbook", "--cloud", "tencent", "other.json").error(2, "inspect SOURCE --json")
