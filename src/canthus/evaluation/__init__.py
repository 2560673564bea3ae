"""Measuring by the protocols of the field: predictions are written to a file, then the file is scored."""
