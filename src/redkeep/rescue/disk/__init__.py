"""What a victim's disk is made of: blocks, partitions, file systems, and one read-only tree of files over them."""
