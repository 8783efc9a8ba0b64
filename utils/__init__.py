"""What the course's notebooks import: places, data, plots and checks."""
