"""What the user can ask for, a function for each: it prepares, runs, tells, and returns a status."""
