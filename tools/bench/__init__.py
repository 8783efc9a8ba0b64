"""What `make bench` measures: code, growth, notebooks and imports, all on one thread."""
