"""What to rebuild of what a victim's disk had: read here, in the cage, and handed on as values and text."""
