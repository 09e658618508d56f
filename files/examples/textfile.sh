#!/bin/sh
#
# Write the state of all jobs for the textfile collector of Prometheus's
# node_exporter (pkg install node_exporter).  Needs nothing else.
#
#	install -m 700 /usr/local/share/examples/kopiatomic/textfile.sh \
#	    /usr/local/etc/kopiatomic/textfile
#
# In /etc/periodic.conf, so that it is written anew when a job has ended:
#
#	daily_restomic_notify="/usr/local/etc/kopiatomic/textfile"
#
# or in /etc/crontab, so that a job that runs is seen as well:
#
#	*/5 * * * * root /usr/local/etc/kopiatomic/textfile

# The directory that node_exporter reads.  Only root may be able to write in it,
# or others could lead what root writes there elsewhere:
#
#	install -d -m 755 /var/db/node_exporter
#	sysrc node_exporter_textfile_dir=/var/db/node_exporter
#	service node_exporter restart
directory=/var/db/node_exporter

# cron(8) does not look for programs there.
PATH=$PATH:/usr/local/bin
umask 022
status=0

if [ -z "$(find "$directory" -prune -type d -user root ! -perm -020 ! -perm -002)" ]; then
	echo "$directory is no directory that only root can write" >&2
	exit 1
fi

for program in kopiatomic restomic; do
	# The collector reads what ends in .prom, and must never read half of it:
	# rename(2), which mv calls within a directory, puts it there at once.
	new=$(mktemp "$directory/$program.XXXXXXXXXX") || exit
	if $program --status --metrics > "$new" && chmod 644 "$new"; then
		mv -f "$new" "$directory/$program.prom" && continue
	fi
	# What was there stays; node_textfile_mtime_seconds tells how old it is.
	rm -f "$new"
	status=1
done
exit $status
