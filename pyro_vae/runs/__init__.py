"""A run: fitting it, going on with it, its folder, report and diagnosis."""
