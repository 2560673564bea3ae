"""Bridges for programs written for other packages: the same names and shapes, answered by canthus."""
