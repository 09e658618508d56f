#!/bin/sh
#
# What continuous integration runs on FreeBSD, as root, in a checkout: the port
# under the real framework, and the tests on pools on files.
set -ex

export BATCH=yes
kldstat -q -m zfs || kldload zfs

# The branch of the ports tree that this machine's packages are built from: the
# newest quarterly one, unless pkg(8) was told to take the latest.
branch=$(git ls-remote --heads https://git.FreeBSD.org/ports.git '20*Q*' |
    sed 's|.*/||' | sort | tail -1)
case $(pkg -vv) in
*/latest\"*)
	branch=main
	;;
esac
git clone --quiet --depth 1 --branch "$branch" https://git.FreeBSD.org/ports.git /usr/ports

# A checkout, which is a port, beside the tree's own.
checkout=/usr/ports/sysutils/kopiatomic-checkout
port=/usr/ports/sysutils/kopiatomic
cp -R . "$checkout"
cd "$checkout"
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

# What a committer gets, and the tarball that GitHub makes of the tag.
make submission SUBMISSION="$port"
cd "$port"
sources=$(make -V "\${WRKSRC:T}")
archive=$(make -V DISTDIR)/$(make -V DISTFILES)
mkdir -p "${archive%/*}"
tar -cz -s "|^\\.|$sources|" -f "$archive" -C "$checkout" .
make makesum
# Suggestions are for people to weigh; what portlint calls fatal fails here.
portclippy Makefile || true
portlint -AC
make DEVELOPER=yes check-plist stage-qa

# The same package a second time.
SOURCE_DATE_EPOCH=1700000000
export SOURCE_DATE_EPOCH
make clean package
one=$(sha256 -q "$(make -V PKGFILE)")
make clean package
[ "$one" = "$(sha256 -q "$(make -V PKGFILE)")" ]
unset SOURCE_DATE_EPOCH

# Built as users build it; installed, run, installed over itself, and gone without a trace.
make clean package
package=$(make -V PKGFILE)
find /usr/local /var/db/kopiatomic 2>/dev/null | sort > /tmp/before
pkg add "$package"
for program in kopiatomic restomic; do
	$program --version
	$program --status
	man -P cat $program > /dev/null
	# Which of the base's pages are here is the machine's matter.
	if mandoc -Tlint -Wall "$(man -w $program)" | grep -v 'manual not found'; then
		exit 1
	fi
done
pkg check -s kopiatomic
pkg add -f "$package"
pkg delete -y kopiatomic
find /usr/local /var/db/kopiatomic 2>/dev/null | sort > /tmp/after
diff /tmp/before /tmp/after

cd "$checkout"
make check-plist
make test
make demo
make clean
