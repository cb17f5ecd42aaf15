"""Models: priors with their statistics and the contract of their grid, saved and opened as bundles."""
