"""The console: what every command line here shares. Imports nothing of the judge."""
