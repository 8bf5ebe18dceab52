"""Arrays too large for memory: chunks of rows, mapped files, threads."""
