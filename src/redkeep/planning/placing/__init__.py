"""Who runs where, under which addresses, and what that survives. Pure."""
