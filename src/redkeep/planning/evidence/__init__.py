"""What servers say of themselves and of each other, in the form that rules and repairs ask for. Pure."""
