"""The report page: one HTML file that shows a run, or several side by side, and loads nothing from anywhere."""
