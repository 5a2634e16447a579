"""What lies on a host, as text: settings, users, units, and the scripts that run there. Pure."""
