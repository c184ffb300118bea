"""A small model that comes with pip: what is served and trained where nothing else is named or reachable."""
