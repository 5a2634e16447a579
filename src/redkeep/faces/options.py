"""The options that mean the same on every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redkeep.faces.session import DEFAULT_FILE as DEFAULT_FILE

FileOption = Annotated[Path, typer.Option("-f", "--file", help="The deployment file.", show_default=True)]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")
]
YesOption = Annotated[
    bool,
    typer.Option("--yes", help="Answer ordinary questions with yes; never those about host keys or risks."),
]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")]

# With what, and whom it may be shown, for servers that Redkeep did not set up.
UserOption = Annotated[str, typer.Option("--user", help="Whose password it is, where not default's.")]
PasswordFileOption = Annotated[
    Path | None, typer.Option("--password-file", help="Its first line is the password; - asks for it.")
]
CaOption = Annotated[Path | None, typer.Option("--ca", help="The CA that signed the servers' certificates.")]
CertOption = Annotated[
    Path | None,
    typer.Option("--cert", help="A client's certificate, where servers ask for one (tls-auth-clients yes)."),
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", help="Its private key, where that is not in the same file.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust-discovered", help="Show the password to every node that others name.")
]
ClearTextOption = Annotated[
    bool, typer.Option("--allow-clear-text", help="Send the password unencrypted to public addresses.")
]

# The disk of a dead server.
SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        readable=False,  # what is not is told with what to do
        help="A directory where the disk is mounted, a device, a raw or qcow2 image, or a bundle.",
    ),
]
PartitionOption = Annotated[
    str, typer.Option("--partition", help="Which is the root, where that is not plain: 2, or group/volume.")
]
MountOption = Annotated[
    bool,
    typer.Option("--mount", help="Let this host's kernel mount it read-only. For hosts that you throw away."),
]
