"""CPRFA: dense annotation and recurrent, consistency-aware updates (see `method`)."""

from canthus.methods.cprfa.method import Cprfa

__all__ = ["Cprfa"]
