"""What the user can ask for, one function for each: it prepares, runs, tells, gives a status."""
