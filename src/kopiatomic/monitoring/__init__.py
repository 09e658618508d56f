"""What became of the jobs: their histories, what earlier runs have left, what endangers backups."""
