"""What was on a victim's disk, a family a file."""
