"""Mistakes: every mistake that can be named, and the search for the one that was made."""
