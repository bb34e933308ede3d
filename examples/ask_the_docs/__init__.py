"""Questions about this repository's documentation, answered by a model with citations."""
