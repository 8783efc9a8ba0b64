"""Maintainers' commands behind the Makefile: execute, stamp, measure."""
