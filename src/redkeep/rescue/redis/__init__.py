"""A victim's RDB and append-only files: read, copied clean, and told apart by server."""
