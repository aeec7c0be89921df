"""The chain: the table of steps, the `dier` command, what is printed at the end."""
