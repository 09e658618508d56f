"""What became of the jobs: their histories, what killed runs have left, what endangers backups."""
