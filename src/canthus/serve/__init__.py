"""`canthus serve`: faces over HTTP. `worker` aligns what comes in, `app` speaks HTTP, `run` opens the port, `browser`
gives out the page that finds faces in the browser."""

from canthus.weights import DEFAULT, DETECTOR

PAGE_WEIGHTS = {"aligner": DEFAULT, "detector": DETECTOR}
"""Folder of the page for browsers -> the shipped weights that it runs."""
