"""The scripts under periodic(8): what they give to the program, and what comes out of it.

Stubs stand in for both programs: they note how they were started, and end as told. periodic(8)
is the sandbox's, or FreeBSD's own in a jail with a configuration, periodic directories and a
mailbox of the tests.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.jail import Jail
from support.machine import Sandbox
from support.rendering import renderer

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

PROGRAMS = ("kopiatomic", "restomic")
PERIODS = ("daily", "weekly", "monthly")
CONFS = ("etc/periodic.conf", "etc/periodic.conf.local", "usr/local/etc/periodic.conf")
STUB = r"""#!/bin/sh
{ printf '%s\0' "${0##*/}" "$@"; printf '\001\0'; } >> /var/log/started
status=0
[ ! -r "/etc/answer" ] || . /etc/answer
exit $status
"""


class Night:
    """A machine with the scripts installed."""

    def __init__(self, directory: Path) -> None:
        self.machine = Sandbox(directory) if sys.platform.startswith("linux") else Jail()
        self.root = self.machine.path("/")
        renderer().write(str(self.root), "/usr/local")
        for program in PROGRAMS:
            path = self.root / "usr/local/sbin" / program
            path.write_text(STUB)
            path.chmod(0o755)

    def begin(self) -> None:
        """Forget all that a test has configured and done."""
        for path in (*CONFS, "etc/answer", "var/log/started", "var/mail/root"):
            (self.root / path).unlink(missing_ok=True)
        for path in (self.root / "usr/local/etc/periodic").glob("*/*.test*"):
            path.unlink()

    def configure(self, text: str, path: str = "etc/periodic.conf") -> None:
        (self.root / path).write_text(text)

    def answer(self, text: str) -> None:
        """Say what the programs do: shell, `status` being what they exit with."""
        (self.root / "etc/answer").write_text(text)

    def script(self, name: str, text: str) -> None:
        path = self.root / "usr/local/etc/periodic" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, period: str = "daily") -> str:
        """Run periodic and return what it printed."""
        result = self.machine.run(["periodic", period])
        assert result.returncode == 0
        assert result.stderr == ""
        return result.stdout

    def by_hand(self, script: str) -> tuple[int, str]:
        """Run one script; return its status and output."""
        result = self.machine.run([f"/usr/local/etc/periodic/{script}"])
        return result.returncode, result.stdout + result.stderr

    def started(self) -> list[list[str]]:
        """Return the command lines of the programs, in order."""
        path = self.root / "var/log/started"
        data = path.read_text() if path.exists() else ""
        return [call.split("\0")[:-1] for call in data.split("\1\0")[:-1]]

    def mails(self) -> list[tuple[str, str]]:
        """Return subject and text of each mail to root."""
        path = self.root / "var/mail/root"
        data = path.read_text() if path.exists() else ""
        return [
            (re.search("^Subject: (.*)$", mail, re.M)[1], mail.split("\n\n", 1)[1].rstrip("\n"))
            for mail in re.split(r"^From .*\n", data, flags=re.M)[1:]
        ]


@pytest.fixture(scope="module")
def machine_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    made = Night(tmp_path_factory.mktemp("periodic") / "host")
    yield made
    made.machine.close()


@pytest.fixture
def night(machine_of_the_module: Night) -> Night:
    machine_of_the_module.begin()
    return machine_of_the_module


QUIET = "".join(f"{each}_status_security_enable=NO\n{each}_output=\n" for each in PERIODS)


# What the program is given


BACKUPS = {
    "datasets": (
        "daily_restomic_datasets='zroot/home zroot/src'",
        ["--datasets", "zroot/home zroot/src"],
    ),
    "a dataset with a blank": (
        """daily_restomic_datasets="zroot/home 'zroot/with  space'" """,
        ["--datasets", "zroot/home 'zroot/with  space'"],
    ),
    "a mount point with a tab": (
        """daily_restomic_datasets="'/mnt/a	b' \\"/c d\\"" """,
        ["--datasets", "'/mnt/a\tb' \"/c d\""],
    ),
    "lines": (
        "daily_restomic_datasets='\n\tzroot/home\n\tzroot/src\n'",
        ["--datasets", "\n\tzroot/home\n\tzroot/src\n"],
    ),
    "shell syntax": (
        r"""daily_restomic_datasets='$HOME `touch /x` $(touch /x) "; touch /x; \\ & | ~ -a'""",
        ["--datasets", r'$HOME `touch /x` $(touch /x) "; touch /x; \\ & | ~ -a'],
    ),
    "a value like an option": ("daily_restomic_datasets=-a", ["--datasets", "-a"]),
    "a list": (
        "daily_restomic_paths_from='/usr/local/etc/my list'",
        ["--paths-from", "/usr/local/etc/my list"],
    ),
    "a program's own words": (
        "daily_restomic_datasets=d\ndaily_restomic_options='--tag \"two words\" -e \"*.o\"'",
        ["--datasets", "d", "-o", '--tag "two words" -e "*.o"'],
    ),
    "all but patterns": (
        "daily_restomic_all=yes\ndaily_restomic_exclude=\"* /etc/* [a-z]* 'with space*'\"",
        ["--excludes", "* /etc/* [a-z]* 'with space*'", "-a"],
    ),
    "live directories": (
        "daily_restomic_datasets=zroot\ndaily_restomic_live='/var/cache/restic /etc/*'",
        ["--datasets", "zroot", "--lives", "/var/cache/restic /etc/*"],
    ),
    "jails and what is not mounted": (
        "daily_restomic_all=yes\ndaily_restomic_jailed=yes\ndaily_restomic_at=/mnt",
        ["--at", "/mnt", "--jailed", "-a"],
    ),
    "without the layout": (
        "daily_restomic_all=yes\ndaily_restomic_layout=no", ["--no-layout", "-a"],
    ),
    "tries": (
        "daily_restomic_datasets=d\ndaily_restomic_retries=3\ndaily_restomic_retry_pause=90s",
        ["--datasets", "d", "--retries", "3", "--retry-pause", "90s"],
    ),
    "everything": (
        """
daily_restomic_datasets=zroot
daily_restomic_recursive=Yes
daily_restomic_plain=YES
daily_restomic_exclude=zroot/tmp
daily_restomic_command="/root/bin/my\\ wrapper backup"
daily_restomic_env_file="/usr/local/etc/with space.env"
daily_restomic_pre='echo "before"; touch /tmp/x'
daily_restomic_snapshot='service postgresql start'
daily_restomic_post='logger "$KOPIATOMIC_OUTCOME"'
""",
        [
            "--datasets", "zroot", "--excludes", "zroot/tmp",
            "-c", r"/root/bin/my\ wrapper backup", "--env-files", "/usr/local/etc/with space.env",
            "-p", 'echo "before"; touch /tmp/x', "-s", "service postgresql start",
            "-q", 'logger "$KOPIATOMIC_OUTCOME"', "-r", "--plain",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BACKUPS)
def test_a_backup_is_given(night: Night, case: str):
    text, words = BACKUPS[case]
    night.configure(f"{QUIET}daily_restomic_enable=YES\n{text}\n")
    assert night.run() == "\n\n-- End of daily output --\n"
    assert night.started() == [["restomic", "--periodic", "-j", "default", *words]]
    assert not (night.root / "x").exists()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("period", "job"), [
    ("daily", "default"), ("weekly", "weekly"), ("monthly", "monthly"),
])  # fmt: skip
def test_every_period_has_a_job_of_its_own(night: Night, program: str, period: str, job: str):
    night.configure(f"{QUIET}{period}_{program}_enable=YES\n{period}_{program}_datasets=d\n")
    for each in PERIODS:
        night.run(each)
    assert night.started() == [[program, "--periodic", "-j", job, "--datasets", "d"]]


def test_nothing_is_started_that_is_not_enabled(night: Night):
    names = "restomic kopiatomic upkeep_restomic drill_restomic status_restomic".split()
    night.configure("".join(
        f"{period}_{name}_enable={no}\n{period}_{name}_datasets=zroot\n"
        for period, no in (("daily", "NO"), ("weekly", "no"), ("monthly", "No")) for name in names
    ))  # fmt: skip
    for period in PERIODS:
        night.run(period)
    assert night.started() == []
    assert [text for _, text in night.mails()] == [
        f"\nSecurity check:\n    (output mailed separately)\n\n-- End of {period} output --"
        for period in PERIODS
    ]


class TestProfiles:
    def test_each_is_one_run_with_values_of_its_own_before_the_general_ones(self, night: Night):
        night.configure(f"""{QUIET}
daily_restomic_enable=YES
daily_restomic_profiles="home  off_site
	3"
daily_restomic_recursive=YES
daily_restomic_env_file=/general.env
daily_restomic_exclude=general
daily_restomic_home_datasets="zroot/home 'zroot/with space'"
daily_restomic_home_env_file=/home.env
daily_restomic_home_exclude=
daily_restomic_off_site_all=YES
daily_restomic_off_site_recursive=NO
daily_restomic_3_datasets='$HOME'
""")
        night.run()
        assert night.started() == [
            ["restomic", "--periodic", "-j", "home",
             "--datasets", "zroot/home 'zroot/with space'", "--env-files", "/home.env", "-r"],
            ["restomic", "--periodic", "-j", "off_site",
             "--excludes", "general", "--env-files", "/general.env", "-a"],
            ["restomic", "--periodic", "-j", "3", "--datasets", "$HOME",
             "--excludes", "general", "--env-files", "/general.env", "-r"],
        ]  # fmt: skip

    def test_one_that_fails_does_not_stop_the_next_and_the_worst_status_wins(self, night: Night):
        night.configure("daily_restomic_enable=YES daily_restomic_profiles='a b c d'\n"
                        "daily_restomic_datasets=d\n")  # fmt: skip
        night.answer('echo "this is $3"; case "$3" in a | c) status=1;; b) status=3;; esac')
        assert night.by_hand("daily/800.restomic") == (
            3, "\nthis is a\n\nthis is b\n\nthis is c\n\nthis is d\n"
        )  # fmt: skip
        night.answer('[ "$3" != b ] || status=1')
        assert night.by_hand("daily/800.restomic")[0] == 1
        assert len(night.started()) == 8

    @pytest.mark.parametrize("name", ["ho-me", "a.b", "../x", "$(x)", "*", "a;b", "'a", "é"])
    def test_a_name_that_cannot_be_one_is_trouble_for_it_alone(self, night: Night, name: str):
        text = f'daily_restomic_enable=YES\ndaily_restomic_profiles="good \\{name} fine"\n'
        text = text.replace("\\", "\\" if name[0] in "$" else "")
        night.configure(f"{text}daily_restomic_datasets=d\n")
        status, output = night.by_hand("daily/800.restomic")
        assert status == 3
        assert f'no backup: in daily_restomic_profiles, "{name}" is not made of letters' in output
        assert [call[3] for call in night.started()] == ["good", "fine"]

    def test_blanks_are_no_profiles(self, night: Night):
        night.configure("daily_restomic_enable=YES daily_restomic_profiles='  '\n"
                        "daily_restomic_datasets=d\n")  # fmt: skip
        assert night.by_hand("daily/800.restomic") == (0, "\n")
        assert [call[3] for call in night.started()] == ["default"]


WRONG = {
    "daily_restomic_enable=yess": 'restomic: no backup: daily_restomic_enable="yess" is neither',
    "daily_restomic_enable=": 'restomic: no backup: daily_restomic_enable="" is neither',
    "daily_restomic_enable='*'": 'restomic: no backup: daily_restomic_enable="*" is neither',
    "daily_restomic_enable=YES": "restomic: no backup: daily_restomic_datasets is empty",
    "daily_restomic_enable=YES daily_restomic_profiles=home":
        "restomic (job home): no backup: daily_restomic_home_datasets is empty",
    "daily_restomic_enable=YES daily_restomic_datasets=d daily_restomic_all=yes":
        "no backup: both daily_restomic_all and daily_restomic_datasets say what to back up",
    "daily_restomic_enable=YES daily_restomic_paths_from=/l daily_restomic_all=yes":
        "no backup: both daily_restomic_all and daily_restomic_paths_from say what to back up",
    "daily_restomic_enable=YES daily_restomic_datasets=d daily_restomic_recursive=-r":
        'no backup: daily_restomic_recursive="-r" is neither YES nor NO',
    "daily_restomic_enable=YES daily_restomic_profiles=home daily_restomic_datasets=d "
    "daily_restomic_home_plain=1":
        'restomic (job home): no backup: daily_restomic_home_plain="1" is neither YES nor NO',
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_bad_configuration_is_trouble_and_seen_on_a_stock_system(night: Night, text: str):
    night.configure(f"{text}\n")
    night.run()
    ((subject, mail),) = night.mails()
    assert subject == "fbsd142.test daily run output"
    assert WRONG[text] in mail
    assert night.started() == []
    assert night.by_hand("daily/800.restomic")[0] == 3


MISSPELLED = {
    "daily_restomic_enable=YES daily_restomic_datasets=d daily_restomic_recursiv=YES":
        "daily_restomic_recursiv",
    "daily_restomic_enable=YES daily_restomic_datasets=d daily_restomic_profile='a b'":
        "daily_restomic_profile",
    "daily_restomic_enable=YES daily_restomic_datasets=d daily_restomic_home_excludes='a/*'":
        "daily_restomic_home_excludes",
    "daily_restomic_enabled=YES daily_restomic_datasets=d": "daily_restomic_enabled",
    "daily_restomic_enable=NO daily_restomic_recursiv=YES": "",
    # A job that is not run for a while.
    "daily_restomic_enable=YES daily_restomic_datasets=d daily_restomic_home_exclude=d": "",
}  # fmt: skip


@pytest.mark.parametrize("text", MISSPELLED)
def test_a_variable_that_is_misspelled_is_told(night: Night, text: str):
    """The backup is made, but it may be another one than is meant."""
    night.configure(f"{text}\n")
    status, output = night.by_hand("daily/800.restomic")
    is_enabled = "_enable=YES" in text
    assert night.started() == (
        [["restomic", "--periodic", "-j", "default", "--datasets", "d"]] if is_enabled else []
    )
    assert ("is set, but there is no such variable" in output) == bool(MISSPELLED[text])
    assert status == (3 if MISSPELLED[text] else 0)
    assert f"restomic: {MISSPELLED[text]} is set" in output or not MISSPELLED[text]


@pytest.mark.parametrize("path", CONFS)
def test_every_periodic_conf_counts(night: Night, path: str):
    night.configure("daily_restomic_enable=YES\ndaily_restomic_datasets=d\n", path)
    night.run()
    assert night.started() == [["restomic", "--periodic", "-j", "default", "--datasets", "d"]]
    assert night.by_hand("daily/800.restomic")[0] == 0
    assert len(night.started()) == 2


def test_a_script_that_is_not_executable_is_not_run(night: Night):
    night.configure("daily_restomic_enable=YES\ndaily_restomic_datasets=d\n")
    path = night.root / "usr/local/etc/periodic/daily/800.restomic"
    path.chmod(0o444)
    night.run()
    path.chmod(0o555)
    assert night.started() == []


# Upkeep, drill, status


AFTERCARE = {
    "weekly/850.upkeep-kopiatomic": ("weekly_upkeep_kopiatomic_enable=YES", [
        ["kopiatomic", "--periodic", "--upkeep", "-j", "default", "--verify", "0", "--maintenance"],
    ]),
    "daily/850.upkeep-restomic": (
        "daily_upkeep_restomic_enable=YES daily_upkeep_restomic_verify=5"
        " daily_upkeep_restomic_forget='--keep-daily 7' daily_upkeep_restomic_prune=YES", [
        ["restomic", "--periodic", "--upkeep", "-j", "default", "--verify", "5",
         "--forget", "--keep-daily 7", "--prune"],
    ]),
    "monthly/850.upkeep-restomic": (
        "daily_restomic_profiles='home off' daily_restomic_env_file=/general"
        " daily_restomic_home_env_file=/home daily_restomic_command='my restic'"
        " monthly_upkeep_restomic_enable=YES monthly_upkeep_restomic_off_env_file=/off"
        " monthly_upkeep_restomic_off_verify=", [
        ["restomic", "--periodic", "--upkeep", "-j", "home", "--verify", "0",
         "-c", "my restic", "--env-files", "/home"],
        ["restomic", "--periodic", "--upkeep", "-j", "off",
         "-c", "my restic", "--env-files", "/off"],
    ]),
    "weekly/860.drill-restomic": (
        "daily_restomic_options='-r x' weekly_drill_restomic_enable=YES"
        " weekly_drill_restomic_profiles=weekly", [
        ["restomic", "--periodic", "-j", "weekly", "--drill", "10", "-o", "-r x"],
    ]),
    "monthly/860.drill-kopiatomic": (
        "monthly_drill_kopiatomic_enable=YES monthly_drill_kopiatomic_files=3", [
        ["kopiatomic", "--periodic", "-j", "default", "--drill", "3"],
    ]),
    "daily/900.status-restomic": ("daily_status_restomic_enable=YES", [
        ["restomic", "--status", "--periodic"],
    ]),
}  # fmt: skip


@pytest.mark.parametrize("script", AFTERCARE)
def test_what_is_done_between_backups(night: Night, script: str):
    text, calls = AFTERCARE[script]
    night.configure(f"{QUIET}{text}\n")
    night.run(script.partition("/")[0])
    assert night.started() == calls
    for status in (0, 1, 3):
        night.answer(f"status={status}")
        assert night.by_hand(script)[0] == status
    night.answer("status=70")
    status, output = night.by_hand(script)
    assert status == 3
    assert "ended with status 70" in output


def beginning(script: str) -> str:
    """Return what the variables of a script begin with: daily_upkeep_restomic, say."""
    period, name = script.split("/")
    return f"{period}_{name[4:].replace('-', '_')}"


@pytest.mark.parametrize("script", AFTERCARE)
def test_a_typo_there_is_trouble_too(night: Night, script: str):
    variable = f"{beginning(script)}_enable"
    night.configure(f"{variable}=on\n")
    status, output = night.by_hand(script)
    assert status == 3
    assert f'{variable}="on" is neither YES nor NO' in output.replace("\n", " ")
    assert night.started() == []


@pytest.mark.parametrize("script", [each for each in AFTERCARE if "status" not in each])
def test_a_variable_that_is_misspelled_there_is_told_too(night: Night, script: str):
    begin = beginning(script)
    night.configure(f"{begin}_enable=YES {begin}_home_env_file=/e {begin}_commands=x\n")
    status, output = night.by_hand(script)
    assert status == 3
    assert f"{begin}_commands is set, but there is no such variable" in output
    assert "env_file is set" not in output
    assert len(night.started()) == 1


def test_a_drill_of_nothing_is_trouble(night: Night):
    night.configure("weekly_drill_restomic_enable=YES weekly_drill_restomic_files=\n")
    status, output = night.by_hand("weekly/860.drill-restomic")
    assert status == 3
    assert "no drill: weekly_drill_restomic_files is empty" in output


def test_the_order_of_a_night(night: Night):
    night.configure("".join(
        f"daily_{name}_enable=YES\ndaily_{name}_datasets=d\n"
        for name in ("restomic", "upkeep_restomic", "status_restomic")
    ) + "security_status_kopiatomic_enable=YES\n")  # fmt: skip
    night.script("daily/502.test-dump", "printf 'dump\\0\\001\\0' >> /var/log/started")
    night.run()
    told = [call[:1] + [word for word in call if word in ("--check", "--upkeep", "--status")]
            for call in night.started()]  # fmt: skip
    assert told == [["kopiatomic", "--check"], ["dump"], ["restomic"], ["restomic", "--upkeep"],
                    ["restomic", "--status"]]  # fmt: skip


# The security script


SECURITY = "security_status_kopiatomic_enable=YES\n"


class TestSecurity:
    def test_is_silent_when_all_is_well(self, night: Night):
        night.configure(SECURITY)
        night.run()
        assert [subject for subject, _ in night.mails()] == ["fbsd142.test daily run output"]
        assert night.started() == [["kopiatomic", "--check", "--periodic", "--max-age", "36"]]

    def test_tells_what_is_found_in_a_mail_before_the_daily_one(self, night: Night):
        night.configure(f"{SECURITY}daily_restomic_enable=YES\ndaily_restomic_datasets=d\n")
        night.answer('[ "$1" != --check ] || { status=3; echo "  an old backup" >&2; }')
        night.run()
        (subject, text), (last, _) = night.mails()
        assert subject == "fbsd142.test daily security run output"
        assert text == ("\nChecking the backups by kopiatomic and restomic:\n  an old backup\n"
                        "\n-- End of security output --")  # fmt: skip
        assert last == "fbsd142.test daily run output"

    def test_expects_every_job_that_is_enabled_at_its_own_age(self, night: Night):
        night.configure(f"""{SECURITY}
security_status_kopiatomic_max_age=30
daily_restomic_enable=YES
daily_kopiatomic_enable=yes
daily_kopiatomic_profiles="home  off"
weekly_restomic_enable=YES
weekly_kopiatomic_profiles="not enabled"
monthly_kopiatomic_enable=YES
""")
        night.run()
        assert night.started()[0] == [
            "kopiatomic", "--check", "--periodic",
            "--max-age", "30", "--expect", "kopiatomic/home",
            "--max-age", "30", "--expect", "kopiatomic/off",
            "--max-age", "30", "--expect", "restomic/default",
            "--max-age", "174", "--expect", "restomic/weekly",
            "--max-age", "750", "--expect", "kopiatomic/monthly",
            "--max-age", "30",
        ]  # fmt: skip

    def test_expects_the_upkeep_and_the_drills_that_are_enabled(self, night: Night):
        night.configure(f"""{SECURITY}
daily_restomic_enable=YES
daily_restomic_profiles="home off"
weekly_upkeep_restomic_enable=YES
monthly_upkeep_restomic_enable=YES
monthly_upkeep_restomic_profiles="off"
monthly_drill_restomic_enable=yes
weekly_drill_restomic_enable=NO
daily_upkeep_kopiatomic_enable=YES
weekly_drill_kopiatomic_enable=YES
weekly_drill_kopiatomic_profiles=
""")
        night.run()
        given = " ".join(night.started()[0][3:])
        assert given == " ".join(
            f"--max-age {age} --expect {job}"
            for age, job in (
                (36, "kopiatomic/default/upkeep"), (36, "restomic/home"), (36, "restomic/off"),
                (180, "kopiatomic/default/drill"), (180, "restomic/home/upkeep"),
                (180, "restomic/off/upkeep"), (756, "restomic/off/upkeep"),
                (756, "restomic/home/drill"), (756, "restomic/off/drill"),
            )
        ) + " --max-age 36"  # fmt: skip

    @pytest.mark.parametrize("period", PERIODS)
    def test_runs_in_its_period_only(self, night: Night, period: str):
        night.configure(f"{SECURITY}security_status_kopiatomic_period={period}\n")
        ran = []
        for each in PERIODS:
            night.run(each)
            ran.append(len(night.started()))
        assert ran == [int(PERIODS.index(each) >= PERIODS.index(period)) for each in PERIODS]

    def test_runs_from_a_crontab_of_its_own(self, night: Night):
        night.configure(SECURITY)
        night.run("security")
        assert len(night.started()) == 1
        night.configure(f"{SECURITY}security_status_kopiatomic_period=NO\n")
        night.run("security")
        assert len(night.started()) == 1

    @pytest.mark.parametrize("text", [
        "security_status_kopiatomic_enable=1", "security_status_kopiatomic_period=dayly",
        "security_status_kopiatomic_max_age=2d", "security_status_kopiatomic_max_age=",
        "security_status_kopiatomic_max_age=08",
    ])  # fmt: skip
    def test_a_typo_is_told(self, night: Night, text: str):
        night.configure(f"{SECURITY}{text}\n")
        night.run()
        subject, mail = night.mails()[0]
        assert subject == "fbsd142.test daily security run output"
        name, _, value = text.partition("=")
        assert f'{name}="{value}"\nis n' in mail
        assert night.started() == []

    def test_a_check_that_does_not_run_is_trouble(self, night: Night):
        night.configure(SECURITY)
        night.answer("kill -9 $$")
        status, output = night.by_hand("security/800.kopiatomic")
        assert status == 3
        assert "kopiatomic --check ended with status 137" in output


# What becomes of what the program says


OUTCOMES = {
    "success": (0, "restomic: the backup succeeded, 3 s"),
    "nothing to do": (0, "restomic: the backup succeeded, 0 s: 0 B added"),
    "skipped datasets": (1, "restomic: the backup succeeded, 3 s\n\nLeft out:\n  tank/x  locked"),
    "leftovers swept": (1, "restomic: the backup succeeded, 3 s\n\nTaken down: tank@old"),
    "bad configuration": (3, "restomic: the dataset 'nope' does not exist"),
    "backend failure": (3, "restomic: the backup FAILED, 3 s\n  ! restic: Fatal: wrong password"),
    "lock held": (3, "restomic: another run of the job default is still going"),
}
SHOWS = list(itertools.product(("YES", "NO"), repeat=3))
# One night after the other: DIRECTORY/conf.N is its periodic.conf. mail(1) does not wait until
# its mail is delivered; who delivers it has the pipe open.
NIGHTS = """
cd "$0" || exit
for each in conf.*; do
    number=${each#conf.}
    rm -f /var/mail/root /var/log/daily
    cp $each /etc/periodic.conf
    periodic daily | cat > printed.$number
    for file in /var/mail/root /var/log/daily; do
        [ ! -e $file ] || mv $file ${file##*/}.$number
    done
done
"""


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("output", ["root", "/var/log/daily", ""], ids=["mail", "file", "stdout"])
def test_what_is_told_about(night: Night, tmp_path: Path, outcome: str, output: str):
    status, text = OUTCOMES[outcome]
    night.answer(f"status={status}; cat <<'EOF'\n{text}\nEOF\n")
    whole = f"\n{text}\n\n-- End of daily output --\n"
    directory = night.root / "var/tmp" / tmp_path.name
    directory.mkdir()
    for number, shows in enumerate(SHOWS):
        names = zip(("success", "info", "badconfig"), shows, strict=True)
        (directory / f"conf.{number}").write_text(
            f"{QUIET}daily_output={output}\ndaily_restomic_enable=YES\ndaily_restomic_datasets=d\n"
            + "".join(f"daily_show_{name}={value}\n" for name, value in names)
        )
    night.machine.run(["sh", "-c", NIGHTS, f"/var/tmp/{tmp_path.name}"], check=True)

    def made(name: str, number: int) -> str:
        path = directory / f"{name}.{number}"
        return path.read_text() if path.exists() else ""

    for number, (success, info, _badconfig) in enumerate(SHOWS):
        hidden = {0: success, 1: info}.get(status) == "NO"
        expected = "" if hidden else whole
        mail = made("root", number).partition("\n\n")[2]
        assert mail == (f"{expected}\n" if output == "root" and expected else "")
        assert made("daily", number) == (expected if output.startswith("/") else "")
        assert made("printed", number) == (expected if not output else "")


@pytest.mark.parametrize(("status", "words"), [
    ("2", "restomic ended with status 2"), ("70", "restomic ended with status 70"),
    ("4", "restomic ended with status 4"),
])  # fmt: skip
def test_no_other_status_gets_past(night: Night, status: str, words: str):
    night.configure("daily_restomic_enable=YES\ndaily_restomic_datasets=d\n")
    night.answer(f"status={status}")
    assert night.by_hand("daily/800.restomic") == (3, f"\n\nrestomic: no backup: {words}\n")


@pytest.mark.parametrize(("break_it", "said"), [
    ("mv restomic restomic.gone", "not found"),
    ("cp restomic restomic.gone; chmod -x restomic", "Permission denied"),
    ("cp restomic restomic.gone; echo 'kill -9 $$' > restomic", "ended with status 137"),
])  # fmt: skip
def test_a_program_that_cannot_run_is_trouble(night: Night, break_it: str, said: str):
    night.configure(f"{QUIET}daily_restomic_enable=YES\ndaily_restomic_datasets=d\n")

    def shell(script: str) -> None:
        night.machine.run(["sh", "-ec", f"cd /usr/local/sbin; {script}"], check=True)

    shell(break_it)
    output, status = night.run(), night.by_hand("daily/800.restomic")[0]
    shell("mv -f restomic.gone restomic; chmod 755 restomic")
    assert said in output
    assert status == 3


# periodic(8) itself, as FreeBSD 14.2 answered


class TestPeriodic:
    def test_which_statuses_are_shown(self, night: Night):
        for status in range(5):
            night.script(f"daily/70{status}.test", f"echo; echo script with status {status}:\n"
                         f"exit {status}")  # fmt: skip
        for added, shown in (("", "0134"), ("daily_show_success=NO\n", "134"),
                             ("daily_show_info=NO\n", "34"), ("daily_show_badconfig=NO\n", "34"),
                             ("daily_show_badconfig=YES\n", "234")):  # fmt: skip
            path = night.root / "etc/periodic.conf"
            night.configure((path.read_text() if path.exists() else QUIET) + added)
            assert night.run() == "".join(
                f"\nscript with status {status}:\n" for status in shown
            ) + "\n-- End of daily output --\n"  # fmt: skip

    def test_the_mails_of_a_night(self, night: Night):
        night.script("security/700.test", 'echo "PERIODIC=$PERIODIC"')
        night.run()
        assert night.mails() == [
            ("fbsd142.test daily security run output",
             "PERIODIC=security daily\n\n-- End of security output --"),
            ("fbsd142.test daily run output",
             "\nSecurity check:\n    (output mailed separately)\n\n-- End of daily output --"),
        ]  # fmt: skip

    @pytest.mark.linux(reason="on FreeBSD the tests deliver the mail themselves")
    def test_the_form_of_a_mail(self, night: Night):
        night.configure("daily_status_security_enable=NO\n")
        night.script("daily/700.test", "echo said")
        night.run()
        mail = (night.root / "var/mail/root").read_text()
        assert re.fullmatch(
            r"From root@fbsd142\.test \w+ \w+ [ \d]\d \d\d:\d\d:\d\d \d{4}\n"
            r"Received: from root \(uid 0\)\n\t\(envelope-from root@fbsd142\.test\)\n\tid \w+\n"
            r"\tby fbsd142\.test \(DragonFly Mail Agent .*\);\n\t\w+, .* \+0000\nTo: root\n"
            r"Subject: .*\nDate: .*\nMessage-Id: <\w+\.\w+@fbsd142\.test>\n"
            r"From: <root@fbsd142\.test>\n\n(?s:.*)\n\n", mail,
        )  # fmt: skip

    def test_no_run_beside_another(self, night: Night):
        night.configure(QUIET)
        night.script("daily/700.test", "periodic daily; echo ended $?")
        assert night.run() == (
            "fbsd142.test daily prior run still in progress\nended 1\n"
            "\n-- End of daily output --\n"
        )  # fmt: skip

    def test_what_has_nothing_to_say_sends_no_mail(self, night: Night):
        night.configure("daily_status_security_enable=NO\n")
        assert night.run() == ""
        assert night.mails() == []
