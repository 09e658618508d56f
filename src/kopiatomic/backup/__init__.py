"""One backup, from the plan to the report; routine.run() is where to begin reading."""
