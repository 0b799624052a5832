"""Proofs: derivations on exact numbers instead of floats: rationals, series, symbols, balls."""
