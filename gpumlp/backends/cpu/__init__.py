"""The CPU backend: compiled operations, and a whole step in one call."""
