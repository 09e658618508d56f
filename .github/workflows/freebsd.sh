#!/bin/sh
#
# What continuous integration runs on FreeBSD, as root, in a checkout: the port
# under the real framework, and the tests on pools on files.
set -ex

port=/usr/ports/sysutils/kopiatomic
export BATCH=yes DEVELOPER=yes
kldstat -q -m zfs || kldload zfs

# As in a checkout, at the place that the framework expects a port at.
cp -R . "$port"
cd "$port"
rm -rf .git .github .venv work

# Its dependencies, as packages: "py311-pytest>0:devel/py-pytest@py311" and
# "/usr/local/bin/python3.11:lang/python311".
names=
for each in $(make -V BUILD_DEPENDS -V RUN_DEPENDS -V TEST_DEPENDS); do
	case $each in
	/*)
		names="$names ${each##*/}"
		;;
	*)
		each=${each%%:*}
		names="$names ${each%%>*}"
		;;
	esac
done
# shellcheck disable=SC2086 # They are words.
pkg install -y $names

make check-plist stage-qa package
make -V PKGFILE

# The same package a second time.
SOURCE_DATE_EPOCH=1700000000
export SOURCE_DATE_EPOCH
make clean package
one=$(sha256 -q "$(make -V PKGFILE)")
make clean package
[ "$one" = "$(sha256 -q "$(make -V PKGFILE)")" ]
unset SOURCE_DATE_EPOCH

# Installed, run, and gone without a trace.
find /usr/local /var/db/kopiatomic ! -path '*/__pycache__*' 2>/dev/null | sort > /tmp/before
pkg add "$(make -V PKGFILE)"
for program in kopiatomic restomic; do
	$program --version
	$program --status
	man -P cat $program > /dev/null
done
pkg check -s kopiatomic
pkg delete -y kopiatomic
find /usr/local /var/db/kopiatomic ! -path '*/__pycache__*' 2>/dev/null | sort > /tmp/after
diff /tmp/before /tmp/after

make test
make demo
make clean

# What a committer gets.
committed=/tmp/kopiatomic
mkdir -p "$committed/files"
cp Makefile pkg-descr pkg-plist "$committed"
cp files/kopiatomic_sweep.in files/pkg-message.in "$committed/files"
cd "$committed"
portclippy Makefile
portlint -C || echo 'portlint found something'
