"""The families of what an inspection finds, as ``--only`` and manifests name them."""

from __future__ import annotations

FAMILIES = {
    "system": "accounts, keys, services, timers, network and package lists",
    "sites": "nginx configuration, web roots, certificates and their keys",
    "uploads": "directories of pictures and uploads that sites name",
    "applications": "jars and application directories with their settings",
    "databases": "MySQL and MariaDB data directories and configuration",
    "redis": "configuration, RDB and AOF files",
    "intrusion": "the files that the intrusion report names",
}
