"""Runs a reader of hostile disks in a process of its own, with bounded memory, that ends with its caller.

What comes back is JSON, never an object: whoever takes over the reader by a forged disk gains nothing here by it.

    result = await caged("redkeep.rescue.survey:job", {"source": "disk.raw"}, emit)
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any

from redkeep import errors
from redkeep.errors import EvidenceError, RedkeepError
from redkeep.model.events import Emit, Note, Progress

#: Address space in bytes, of which libraries and the interpreter take a tenth.
MEMORY = 3 << 30
#: A result of this size is more than anybody reads.
_LONGEST = 512 << 20
_PR_SET_PDEATHSIG = 1


async def caged(job: str, arguments: Mapping[str, Any], emit: Emit) -> Any:
    """``job`` is ``module:function``, called with the arguments and ``emit``; what it returns must be JSON.

    Raises what the job raises of Redkeep's errors, and ``EvidenceError`` where the process died.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "redkeep.rescue.cage", job, str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    last_words = asyncio.create_task(process.stderr.read())
    try:
        process.stdin.write(json.dumps(dict(arguments)).encode())
        process.stdin.close()
        async for line in process.stdout:
            told = json.loads(line)
            if "result" in told:
                return told["result"]
            if "error" in told:
                raise _error(told["error"])
            emit(_event(told))
        status = await process.wait()
        raise _died(status, (await last_words).decode(errors="replace"), arguments)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        last_words.cancel()


def _event(told: dict[str, Any]) -> Note | Progress:
    if "text" in told:
        return Note(told["text"])
    return Progress(told["what"], told["done"], told["total"], told["unit"])


def _error(told: dict[str, str]) -> RedkeepError:
    kind = getattr(errors, told["kind"], RedkeepError)
    raised: RedkeepError = kind(told["what"], where=told["where"], next=told["next"])
    return raised


def _died(status: int, words: str, arguments: Mapping[str, Any]) -> EvidenceError:
    where = str(arguments.get("source", ""))
    lines = words.strip().splitlines()
    if "MemoryError" in words:
        what = f"the reader needed more than {MEMORY >> 30} GiB of memory: a damaged or hostile file system"
    elif status < 0:
        what = f"the reader died of {signal.Signals(-status).name}: a damaged or hostile file system"
    else:
        what = "the reader failed: " + (lines[-1] if lines else f"exit status {status}")
    hint = "repair a copy of it (e2fsck, xfs_repair), or mount it on a throwaway host and name the directory"
    return EvidenceError(what, where=where, next=hint)


def main(job: str, parent: int) -> None:
    """The caged process: arguments on standard input, events and the result on standard output, a line each."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)

    def tell(document: Mapping[str, Any]) -> None:
        pipe.write(json.dumps(document) + "\n")
        pipe.flush()

    def emit(event: Any) -> None:
        tell(vars(event))

    arguments = json.loads(sys.stdin.buffer.read())
    module, _, function = job.partition(":")
    try:
        tell({"result": getattr(importlib.import_module(module), function)(**arguments, emit=emit)})
    except RedkeepError as error:
        kind = type(error).__name__
        tell({"error": {"kind": kind, "what": error.what, "where": error.where, "next": error.next}})
    except BrokenPipeError:  # nobody wants to know any more
        os._exit(1)
    except Exception as error:  # an error that nobody expected, without the victim's data in a traceback
        if isinstance(error, MemoryError):
            raise
        told = " ".join(str(error).split())[:300]
        where = str(arguments.get("source", ""))
        hint = "this is a fault of Redkeep, or a disk that is damaged in a way it does not know"
        tell(
            {
                "error": {
                    "kind": "EvidenceError",
                    "what": f"{type(error).__name__}: {told}",
                    "where": where,
                    "next": hint,
                }
            }
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
