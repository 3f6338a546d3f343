"""Plain Pyro models whose guide is one word, each beside what its posterior is known to be."""
