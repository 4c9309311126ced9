"""Where work runs: models of the box on hosts beyond its own process."""
