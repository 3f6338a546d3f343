"""Pyro's own examples, tutorials and tests, run with the compiled estimators in the place of the stock ones."""
