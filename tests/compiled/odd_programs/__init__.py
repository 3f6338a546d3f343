"""Programs that do odd things, by what is odd about them."""
