#!/bin/sh
#
# Send a message to your phone by ntfy.sh, or by a server of that software, when
# a backup, upkeep or a drill did not end well.  Needs curl (pkg install curl).
#
# Copy this file, so that root alone can read what you write into it:
#
#	install -m 700 /usr/local/share/examples/kopiatomic/ntfy.sh \
#	    /usr/local/etc/kopiatomic/ntfy
#
# and name it in /etc/periodic.conf:
#
#	daily_restomic_notify="/usr/local/etc/kopiatomic/ntfy"

# The topic, and an access token if the server wants one.
url=https://ntfy.sh/TOPIC
token=

# YES to hear of what ended well, too.
always=NO

case $KOPIATOMIC_STATUS in
0)
	[ "$always" = YES ] || exit 0
	priority=low tags=white_check_mark
	;;
*)
	priority=high tags=warning
	;;
esac

authorization=
[ -z "$token" ] || authorization="header = \"Authorization: Bearer $token\""

message=$(mktemp "${TMPDIR:-/tmp}/kopiatomic.XXXXXXXXXX") || exit
trap 'rm -f "$message"' EXIT
trap 'exit 1' HUP INT TERM
# ntfy takes 4096 bytes; what is longer would become a file beside the message.
LC_ALL=C head -c 4000 > "$message"
[ -s "$message" ] || echo "no report" > "$message"

# URL and token are secrets: on the command line all users could see them.
curl --silent --show-error --fail --max-time 20 --retry 5 --output /dev/null \
    --config - <<-END
	url = "$url"
	data-binary = "@$message"
	header = "Title: $(hostname -s): $KOPIATOMIC_PROGRAM $KOPIATOMIC_JOB: $KOPIATOMIC_ACTION $KOPIATOMIC_OUTCOME"
	header = "Priority: $priority"
	header = "Tags: $tags"
	$authorization
END
