"""Mutation testing: every small change to the judge must make a test fail."""
