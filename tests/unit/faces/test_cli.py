"""The command as a user runs it: a process, its output and its exit status."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = "from redkeep.faces.cli import main; main()"
#: A use case that tells and asks, run as the faces run one.
USE_CASE = """
import sys
from redkeep.errors import RefusedError
from redkeep.faces import cli, commandline, output, session
from redkeep.model.events import Approval, Note, Progress, StageStarted, StepDone, StepStarted
from redkeep.model.plan import Step

async def work(approve, emit):
    step = Step("start", "start", "sz-1", "sz-1:6379")
    emit(StageStarted("start", (step,)))
    emit(StepStarted(step))
    emit(Progress("copying", 1, 12, "MiB"))
    emit(Progress("copying", 12, 12, "MiB"))
    emit(StepDone(step, 0.211))
    emit(Note("half way"))
    if KIND == "sleep":
        import asyncio
        emit(Note("sleeping"))
        await asyncio.sleep(60)
    detail = "It is far.\\nfrom here\\ngo elsewhere" if "--far" in sys.argv else "It is far."
    if not await approve(Approval(KIND, "Go on?", detail, "write accept_risk: true")):
        raise RefusedError("not approved")

@commandline.app.command()
def work_command(yes: bool = False, json: bool = False, far: bool = False):
    session.run(work, yes=yes)
    output.out("worked")

cli.main(["work-command", *sys.argv[1:]])
"""


def redkeep(*arguments: str, cwd: Path, code: str = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def use_case(kind: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return redkeep(*arguments, cwd=cwd, code=f"KIND = {kind!r}\n{USE_CASE}")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = redkeep(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "init" in done.stdout
    assert done.stderr == ""


def test_version(tmp_path: Path) -> None:
    assert redkeep("--version", cwd=tmp_path).stdout == "redkeep 0.1.0\n"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom redkeep.faces.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in ('asyncio', 'pydantic', 'rich', 'asyncssh', 'yaml', 'redis') if m in sys.modules],"
        " file=sys.stderr)"
    )
    assert redkeep(cwd=tmp_path, code=code).stderr == "[]\n"


def test_init_and_its_refusal(tmp_path: Path) -> None:
    done = redkeep("init", "--mode", "cluster", "--host", "local", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hosts: [local]" in (tmp_path / "redkeep.yaml").read_text()
    again = redkeep("init", "--mode", "cluster", "--host", "local", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (4, "")
    assert again.stderr.splitlines() == [
        "redkeep.yaml is already there",
        "redkeep.yaml",
        "write another with -f FILE, or replace it with --force",
    ]
    assert redkeep("init", "--mode", "cluster", "--host", "local", "--force", cwd=tmp_path).returncode == 0


def test_init_json(tmp_path: Path) -> None:
    done = redkeep("init", "--mode", "cluster", "--host", "local", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "file": "redkeep.yaml",
        "name": "main",
        "mode": "cluster",
        "hosts": ["local"],
    }


def test_init_without_answers(tmp_path: Path) -> None:
    done = redkeep("init", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "--mode is missing, and nobody to ask",
        "redkeep init",
        "add --mode VALUE",
    ]


def test_schema(tmp_path: Path) -> None:
    assert json.loads(redkeep("schema", cwd=tmp_path).stdout)["required"] == ["mode", "hosts"]


def test_unknown_option(tmp_path: Path) -> None:
    done = redkeep("init", "--xyzzy", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "No such option: --xyzzy",
        "redkeep init",
        "redkeep init --help shows what there is",
    ]


def test_errors_as_json(tmp_path: Path) -> None:
    done = redkeep("nonsense", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    error = json.loads(done.stdout)["error"]
    assert set(error) == {"what", "where", "next"}
    assert "nonsense" in error["what"]


def test_traceback_only_when_asked(tmp_path: Path) -> None:
    code = (
        "from redkeep.faces import cli, commandline\n@commandline.app.command()\n"
        "def fail(v: bool = False): 1 / 0\ncli.main({})"
    )
    plain = redkeep(cwd=tmp_path, code=code.format(["fail"]))
    assert plain.returncode == 1
    assert "Traceback" not in plain.stderr
    assert "ZeroDivisionError" in plain.stderr
    assert "-v shows the traceback" in plain.stderr
    verbose = redkeep("init", "-v", "--mode", "x", "--host", "local", cwd=tmp_path)
    assert "Traceback" in verbose.stderr
    assert verbose.returncode == 2


def test_load_spec(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom redkeep.faces import cli, commandline, output, session\n"
        "@commandline.app.command()\ndef show(): output.out(session.load_spec(Path('redkeep.yaml')).mode)\n"
        "cli.main(['show'])"
    )
    missing = redkeep(cwd=tmp_path, code=code)
    assert missing.returncode == 2
    assert missing.stderr.splitlines() == [
        "no redkeep.yaml here",
        str(tmp_path),
        "write one with redkeep init, or name another with -f FILE",
    ]
    file = tmp_path / "redkeep.yaml"
    file.write_text("mode: clutser\nhosts: [local]\n")
    assert redkeep(cwd=tmp_path, code=code).stderr.splitlines()[1] == "redkeep.yaml:1: mode"
    file.write_bytes(b"mode: cluster\nname: \xff\n")
    assert redkeep(cwd=tmp_path, code=code).stderr.splitlines()[1] == "redkeep.yaml:2"
    file.write_text("mode: cluster\nhosts: [local]\n", encoding="utf-8-sig")
    assert redkeep(cwd=tmp_path, code=code).stdout == "cluster\n"


def test_events_as_lines(tmp_path: Path) -> None:
    done = use_case("ordinary", "--yes", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "worked\n")
    assert done.stderr.splitlines() == [
        "stage  start  1 step",
        "copying  12/12 MiB",
        "done  sz-1  start  sz-1:6379  0.21 s",
        "half way",
    ]


@pytest.mark.parametrize(
    ("kind", "yes", "hint"),
    [
        ("ordinary", False, "run it with --yes, or at a terminal"),
        ("host-key", True, "write accept_risk: true"),
        ("risk", True, "write accept_risk: true"),
        ("clear-text", True, "write accept_risk: true"),
    ],
)
def test_nobody_to_ask(kind: str, yes: bool, hint: str, tmp_path: Path) -> None:
    done = use_case(kind, *(["--yes"] if yes else []), cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-3:] == ["not approved, and nobody to ask: Go on?", "It is far.", hint]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("risk", ["not approved, and nobody to ask: It is far.", "from here", "go elsewhere"]),
        (
            "ordinary",
            [
                "not approved, and nobody to ask: Go on?",
                "It is far.; from here; go elsewhere",
                "run it with --yes, or at a terminal",
            ],
        ),
    ],
)
def test_nobody_to_ask_about_what_takes_more_lines(kind: str, error: list[str], tmp_path: Path) -> None:
    done = use_case(kind, "--far", cwd=tmp_path)
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert lines[lines.index("half way") + 1 :] == error


@pytest.mark.parametrize(("answer", "status"), [("yes", 0), ("no", 4), ("", 4)])
def test_asks_at_a_terminal(answer: str, status: int, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"KIND = 'risk'\n{USE_CASE}", "--yes"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    try:
        seen = _read_until(ours, "[yes/no]")
        assert "done  sz-1  start  sz-1:6379  0.21 s" in seen
        assert "It is far." in seen
        os.write(ours, answer.encode() + b"\n")
        assert process.wait(timeout=20) == status
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def _read_until(descriptor: int, text: str) -> str:
    seen = ""
    while text not in seen:
        chunk = os.read(descriptor, 4096).decode()
        assert chunk, f"it ended: {seen}"
        seen += chunk
    return seen


def test_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"KIND = 'sleep'\n{USE_CASE}"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "sleeping" not in process.stderr.readline():
        time.sleep(0)
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest == "interrupted; run the same command again to finish\n"
    assert out == ""


def test_reader_goes_away(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "schema"],
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [("schema",), ("schema", "--json"), ("--help",)])
def test_an_output_without_room(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 3


def test_a_terminal_that_cannot_show_every_letter(tmp_path: Path) -> None:
    (tmp_path / "redkeep.yaml").write_text(
        "mode: \u201cstandalone\u201d\U0001f600\u00e9\nhosts: [local]\n", encoding="utf-8"
    )
    for encoding in ("ascii", "latin-1"):
        for arguments in (("plan",), ("plan", "--json"), ("explain", "--lang", "zh", "no-password")):
            done = subprocess.run(
                [sys.executable, "-c", COMMAND, *arguments],
                cwd=tmp_path,
                env={**os.environ, "PYTHONIOENCODING": encoding},
                capture_output=True,
                text=True,
                encoding=encoding,
                timeout=30,
            )
            assert "codec" not in done.stderr
            assert done.returncode == (2 if arguments[0] == "plan" else 0)
            if "--json" in arguments:
                assert "\u201cstandalone\u201d\U0001f600\u00e9" in json.loads(done.stdout)["error"]["what"]


@pytest.mark.parametrize("kind", ["file", "taken"])
def test_a_folder_for_passwords_that_cannot_be_used(kind: str, tmp_path: Path) -> None:
    (tmp_path / "redkeep.yaml").write_text("mode: standalone\nhosts: [local]\n")
    folder = tmp_path / ".redkeep"
    if kind == "file":
        folder.write_text("")
    else:
        (folder / "main/secrets.json").mkdir(parents=True)
    done = redkeep("status", cwd=tmp_path)
    assert done.returncode == 1
    what, where, next = done.stderr.splitlines()
    assert "this machine does not let it" in what
    assert str(folder) in where
    assert "permissions" in next


def test_without_standard_input(tmp_path: Path) -> None:
    script = f"exec {sys.executable} -c '{COMMAND}' init <&-"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "--mode is missing, and nobody to ask")


def test_a_folder_that_was_deleted_under_our_feet(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {sys.executable} -c '{COMMAND}' plan"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == [
        "no redkeep.yaml here",
        "the current folder, which somebody has deleted",
    ]


def test_the_list_of_client_libraries_needs_no_file(tmp_path: Path) -> None:
    done = redkeep("client", "--json", cwd=tmp_path)
    assert done.returncode == 0
    names = [library["name"] for library in json.loads(done.stdout)["libraries"]]
    assert {"lettuce", "spring-boot", "spring-boot-2.1", "jedis", "go-redis", "ioredis", "redis-py"} == {
        *names
    }


def test_an_unknown_client_library_is_named_before_anything_else(tmp_path: Path) -> None:
    done = redkeep("client", "letuce", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean lettuce?" in done.stderr


def test_client_settings_before_the_first_apply(tmp_path: Path) -> None:
    (tmp_path / "redkeep.yaml").write_text("mode: standalone\nhosts: [local]\n")
    done = redkeep("client", "jedis", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "redkeep apply"
