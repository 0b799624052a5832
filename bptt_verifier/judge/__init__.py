"""The judge: one path from a submission and a subject to a report."""
