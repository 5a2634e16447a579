"""What a drill breaks, and how that is caused and undone. Pure."""
