"""Programs: a loss as a list of operations, traced, evaluated and differentiated in NumPy."""
