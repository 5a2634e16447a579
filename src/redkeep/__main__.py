"""``python -m redkeep``, the same as the command ``redkeep``."""

from __future__ import annotations

from redkeep.faces.cli import main

if __name__ == "__main__":
    main()
