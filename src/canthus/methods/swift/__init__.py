"""swift: the fast default (see `method`)."""

from canthus.methods.swift.method import Swift

__all__ = ["Swift"]
