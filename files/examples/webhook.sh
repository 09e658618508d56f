#!/bin/sh
#
# Post how a backup, upkeep or a drill ended, as JSON, to a server of yours.
# Needs curl (pkg install curl).
#
# Copy this file, so that root alone can read what you write into it:
#
#	install -m 700 /usr/local/share/examples/kopiatomic/webhook.sh \
#	    /usr/local/etc/kopiatomic/webhook
#
# and name it in /etc/periodic.conf:
#
#	daily_restomic_notify="/usr/local/etc/kopiatomic/webhook"

url=https://example.org/hooks/SECRET

# Print standard input as a string of JSON (RFC 8259), whatever is in it: bytes
# that are no UTF-8 and control characters are left out.
string()
{
	tab=$(printf '\t')
	printf '"'
	iconv -c -s -f UTF-8 -t UTF-8 | LC_ALL=C tr -d '\000-\010\013-\037' |
	    LC_ALL=C sed -e 's/[\\"]/\\&/g' -e "s/$tab/\\\\t/g" |
	    LC_ALL=C awk '{ printf "%s%s", end, $0; end = "\\n" }'
	printf '"'
}

# Print a member of the object: its name, and what is on standard input.
member()
{
	printf '"%s": ' "$1"
	string
}

body=$(mktemp "${TMPDIR:-/tmp}/kopiatomic.XXXXXXXXXX") || exit
trap 'rm -f "$body"' EXIT
trap 'exit 1' HUP INT TERM
{
	printf '{'
	member report
	for each in host:"$(hostname)" program:"$KOPIATOMIC_PROGRAM" \
	    job:"$KOPIATOMIC_JOB" run:"$KOPIATOMIC_RUN" \
	    action:"$KOPIATOMIC_ACTION" outcome:"$KOPIATOMIC_OUTCOME" \
	    message:"$KOPIATOMIC_MESSAGE"; do
		printf ', '
		printf %s "${each#*:}" | member "${each%%:*}"
	done
	printf ', "status": %d}\n' "$KOPIATOMIC_STATUS"
} > "$body"

# The URL is a secret: on the command line all users could see it.
curl --silent --show-error --fail --max-time 20 --retry 5 --output /dev/null \
    --config - <<-END
	url = "$url"
	header = "Content-Type: application/json"
	data-binary = "@$body"
END
