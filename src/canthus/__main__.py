"""`python -m canthus`."""

from canthus.cli import app

app()
