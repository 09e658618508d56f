#!/bin/sh
#
# Tell healthchecks.io, or a server of that software, how backups, upkeep and
# drills end.  Needs curl (pkg install curl).
#
# Copy this file, so that root alone can read what you write into it:
#
#	install -m 700 /usr/local/share/examples/kopiatomic/healthchecks.sh \
#	    /usr/local/etc/kopiatomic/healthchecks
#
# and name it in /etc/periodic.conf:
#
#	daily_restomic_notify="/usr/local/etc/kopiatomic/healthchecks"
#	daily_restomic_pre="/usr/local/etc/kopiatomic/healthchecks start"
#
# The second line, which is not needed, tells that a backup begins, so that one
# that never ends is noticed.  It always succeeds: a backup does not depend on it.

# The project's ping key.  Each job has checks of its own there, which are made
# with its first ping: HOST-restomic-default-backup, ...-upkeep, ...-drill.
url=https://hc-ping.com/PING_KEY

case ${1:-$KOPIATOMIC_STATUS} in
start)
	what=/start retry=0
	;;
0)
	what='' retry=5
	;;
*)
	what=/fail retry=5
	;;
esac

slug=$(hostname -s)-$KOPIATOMIC_PROGRAM-$KOPIATOMIC_JOB-${KOPIATOMIC_ACTION:-backup}
slug=$(printf %s "$slug" | LC_ALL=C tr '[:upper:]' '[:lower:]' |
    LC_ALL=C tr -c a-z0-9_- -)

body=$(mktemp "${TMPDIR:-/tmp}/kopiatomic.XXXXXXXXXX") || exit
trap 'rm -f "$body"' EXIT
trap 'exit 1' HUP INT TERM
[ "$what" = /start ] || LC_ALL=C head -c 90000 > "$body"

# The URL is a secret: on the command line all users could see it.
curl --silent --show-error --fail --max-time 20 --retry $retry \
    --output /dev/null --config - <<-END
	url = "$url/$slug$what?create=1"
	data-binary = "@$body"
END
status=$?

[ "$what" != /start ] || exit 0
exit $status
