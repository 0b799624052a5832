"""Tolerances: how far a correct result may be off, derived or measured, and the comparison."""
