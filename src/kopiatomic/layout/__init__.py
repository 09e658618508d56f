"""How a machine's pools are laid out: taken down, kept as a file, and made anew from it."""
