"""Signs of a break-in on a victim's disk, as findings with how sure they are and who says so."""
