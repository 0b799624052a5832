"""The terminal: tables, progress bars, files to write, and arguments refused in one sentence."""
