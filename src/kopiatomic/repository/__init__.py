"""What is done between backups: upkeep of the repository, and the restore drill."""
