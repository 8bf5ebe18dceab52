"""The NumPy backend: the plain reference, and the fallback where there is no GPU."""
