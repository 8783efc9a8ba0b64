"""Maintainers' commands behind the Makefile: execute the notebooks, build slides, stamp."""
