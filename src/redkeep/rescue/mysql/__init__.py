"""From a victim's data directory of MySQL or MariaDB to clean dumps."""
