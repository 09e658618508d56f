"""Which backups of a restic repository are a job's, and how those are forgotten."""

import pytest

from kopiatomic.clients.records import FORGET, ByHand, Made, Past
from kopiatomic.clients.restic_retention import (
    Earlier,
    check_forget,
    find_earlier,
    forget_words,
    hosts_of,
    is_rehearsal,
    ready,
    withheld,
)
from kopiatomic.errors import Refusal
from unit.clients.answers import Matching, listing

TAG = "restomic:home"


class TestForget:
    @pytest.mark.parametrize(
        "words",
        [
            "", "--tag x", "--host h", "--prune", "--group-by host", "--tag --keep-last",
            "--host --keep-daily --prune",
        ],
    )  # fmt: skip
    def test_needs_keep_flags(self, words):
        with pytest.raises(Refusal, match="without a --keep flag every backup could go"):
            check_forget(words.split())

    @pytest.mark.parametrize("words", ["--keep-last 3 abcd1234", "latest --keep-last=3", "-l3 x"])
    def test_takes_no_names_of_snapshots(self, words):
        with pytest.raises(Refusal, match="belongs to no option"):
            check_forget(words.split())

    def test_takes_nothing_that_removes_all(self):
        with pytest.raises(Refusal, match="no backup at all"):
            check_forget(["--keep-last", "1", "--unsafe-allow-remove-all"])

    @pytest.mark.parametrize(
        "words",
        [
            "--keep-daily 7", "--keep-within=1y", "-d 7 -w 5", "-d7", "-H 24 --tag a --path /x",
            "--keep-last -1 --group-by host --max-unused 5%", "--keep-tag t -c -n",
        ],
    )  # fmt: skip
    def test_takes_policies(self, words):
        check_forget(words.split())
class TestForgetWords:
    def words(self, text, host="h", prune=False):
        return " ".join(forget_words(text.split(), host, TAG, prune))

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ("-l 1", f"--host h --tag {TAG} --group-by host -l 1"),
            ("-l 1 --host a --host b", f"--tag {TAG} --group-by host -l 1 --host a --host b"),
            ("-l 1 --hostname=a", f"--tag {TAG} --group-by host -l 1 --hostname=a"),
            ("-l 1 --tag x,y --tag=z", f"--host h --group-by host -l 1 --tag x,y,{TAG} "
             f"--tag z,{TAG}"),
            ("-l 1 -g paths", f"--host h --tag {TAG} -l 1 -g paths"),
            ("-l 1 -gpaths", f"--host h --tag {TAG} -l 1 -gpaths"),
            ("--group-by=tags -l1", f"--host h --tag {TAG} --group-by=tags -l1"),
            ("--keep-tag --tag -l1", f"--host h --tag {TAG} --group-by host --keep-tag --tag -l1"),
            ("--path --tag -l1", f"--host h --tag {TAG} --group-by host --path --tag -l1"),
        ],
    )  # fmt: skip
    def test_they_are_about_the_job_alone(self, given, told):
        assert self.words(given) == told

    def test_prune_once(self):
        assert self.words("-l 1", prune=True).endswith("-l 1 --prune")
        assert self.words("--prune -l 1", prune=True).endswith("--prune -l 1")

    @pytest.mark.parametrize("words", [["--tag", ""], ["--tag=a,"], ["--tag=,a"], ["--tag", " "]])
    def test_backups_without_a_tag_are_none_of_the_jobs(self, words):
        with pytest.raises(Refusal, match="backups without a tag"):
            forget_words(["-l", "1", *words], "h", TAG, False)

    @pytest.mark.parametrize("words", [["--host", ""], ["--host="], ["--host=a", "--hostname="]])
    def test_all_machines_are_too_many(self, words):
        with pytest.raises(Refusal, match="the backups of all machines"):
            forget_words(["-l", "1", *words], "h", TAG, False)

    def test_a_host_that_is_not_known(self):
        with pytest.raises(Refusal, match="works out RESTIC_HOST"):
            self.words("-l 1", host=None)
        assert "--host a" in self.words("-l 1 --host a", host=None)

    def test_what_they_say(self):
        assert hosts_of(["--host", "a", "--host=b", "--host", "a"]) == ["a", "b"]
        assert is_rehearsal(["-cn"])
        assert is_rehearsal(["--dry-run"])
        assert not is_rehearsal(["--path", "-n"])


def backup(name, paths, day, tags=(), host="h", original=None):
    """Return a backup as restic lists it."""
    found = {"id": name, "paths": paths.split(), "hostname": host, "tags": list(tags),
             "time": f"2026-01-{day:02}T00:00:00Z", "original": original}  # fmt: skip
    return {key: value for key, value in found.items() if value}


DAY = 86400
JANUARY = 1767225600.0  # 2026-01-01 00:00 UTC


def run(paths, day, backups=(), command=("restic", "backup"), job="home"):
    return Made(job, JANUARY + (day - 1) * DAY, JANUARY + day * DAY, tuple(paths.split()),
                tuple(backups), command)  # fmt: skip


class TestEarlier:
    def find(self, listed, own=(), others=(), hosts=("h",)):
        return find_earlier(listed, TAG, hosts, "h", Past(tuple(own), tuple(others)))

    def test_those_of_paths_that_the_job_had(self):
        listed = [backup("a1", "/a", 1), backup("b1", "/b /a", 2), backup("c1", "/c", 3)]
        found = self.find(listed, [run("/a", 1), run("/a /b", 2)])
        assert found == Earlier(("a1", "b1"))

    def test_the_paths_of_those_with_the_tag_count_too(self):
        listed = [backup("a1", "/a", 1), backup("a2", "/a", 2, [TAG])]
        assert self.find(listed).ours == ("a1",)

    def test_those_that_the_job_made_by_their_names(self):
        assert self.find([backup("a1b2", "/x", 1)], [run("", 1, ["a1"])]).ours == ("a1b2",)

    def test_not_those_of_another_machine(self):
        assert self.find([backup("a1", "/a", 1, host="b")], [run("/a", 1)]) == Earlier()

    def test_of_a_machine_that_is_named_only_its_own_backups_tell(self):
        listed = [backup("a1", "/a", 1, host="b"), backup("b1", "/b", 1, host="b"),
                  backup("b2", "/b", 2, [TAG], host="b")]  # fmt: skip
        found = self.find(listed, [run("/a", 1)], hosts=("h", "b"))
        assert found.ours == ("b1",)

    def test_not_those_with_the_tag_of_another_job(self):
        listed = [backup("a1", "/a", 1, ["restomic:other"]), backup("a2", "/a", 1, ["mine"])]
        found = self.find(listed, [run("/a", 1)])
        assert found == Earlier((), ("a2",), ("h",))

    def test_not_those_that_another_job_may_have_made(self):
        listed = [backup("a1", "/a", 1), backup("a2", "/a", 1), backup("a3", "/a", 1)]
        own, others = [run("/a", 1, ["a1"])], [run("/a", 1, ["a2"], job="other")]
        found = self.find(listed, own, others)
        assert (found.ours, found.doubtful) == (("a1",), ("a3",))

    @pytest.mark.parametrize(
        ("own", "tagged"),
        [
            ([run("/a", 1), run("/a", 3, command=("restic", "--tag", f"x,{TAG}"))], ()),
            ([run("/a", 1)], [backup("b1", "/a", 3, [TAG])]),
        ],
    )
    def test_not_those_that_somebody_made_once_there_were_tags(self, own, tagged):
        listed = [backup("a1", "/a", 2), backup("a2", "/a", 4), *tagged]
        assert self.find(listed, own).ours == ("a1",)

    def test_those_that_got_the_tag_later_are_no_limit(self):
        listed = [backup("a1", "/a", 2), backup("b1", "/a", 1, [TAG], original="b0")]
        assert self.find(listed).ours == ("a1",)

    def test_one_that_could_not_be_removed_when_it_got_the_tag_does_not_get_it_again(self):
        listed = [backup("a1", "/a", 2), backup("b1", "/a", 2, [TAG], original="a1")]
        assert self.find(listed, [run("/a", 2, ["a1"])]) == Earlier()

    def test_where_none_is_the_jobs(self):
        assert self.find([backup("a1", "/a", 1)]).bare == ("h",)
        assert self.find([]).bare == ()
        assert self.find([backup("a1", "/a", 1, ["restomic:other"])]).bare == ()


class TestReady:
    def test_what_is_told(self):
        listed = (
            b'[{"id":"ab","paths":["/a"],"time":"2026-01-01T00:00:00Z","hostname":"h"},'
            b'{"id":"cd","paths":["/a"],"time":"2026-01-01T00:00:00Z","hostname":"h",'
            b'"tags":["restomic:two"]}]'
        )
        reader = Matching({"snapshots": listed})
        past = Past((run("/a", 1),))
        found = ready(reader, TAG, ["-l", "1"], "h", past, ByHand("restic-x"))
        assert reader.asked == [("snapshots", "--no-lock", "--json", "--host", "h")]
        doubtful, bare = found.notes
        assert doubtful.endswith("the tag of this job: restic-x tag --add restomic:home ab")
        assert "no backup of h is known to be of this job" in bare
        assert not found.steps

    def test_volumes_are_forgotten_by_themselves_where_there_are_any(self):
        """Of the files and volumes of one night, --keep-daily would keep one backup alone."""
        listed = (
            b'[{"id":"ab","paths":["/dev/zvol/t/v"],"time":"2026-01-01T00:00:00Z",'
            b'"hostname":"h","tags":["restomic:home:volume"]}]'
        )
        reader = Matching({"snapshots": listed})
        words = ["--keep-daily", "7", "--prune"]
        (step,) = ready(reader, TAG, words, "h", Past(), ByHand("restic-x")).steps
        assert step.kind == FORGET
        assert " ".join(step.argv).endswith(
            "forget --host h --tag restomic:home:volume --group-by host --keep-daily 7 "
            "--group-by host,paths"
        )

    @pytest.mark.parametrize("group", ["-g host", "-ghost", "--group-by=", "--group-by tags,host"])
    def test_one_volume_never_replaces_another(self, group):
        listed = b'[{"id":"ab","paths":["/v"],"time":"2026-01-01T00:00:00Z","hostname":"h",'
        listed += b'"tags":["restomic:home:volume"]}]'
        reader = Matching({"snapshots": listed})
        (step,) = ready(reader, TAG, ["-l1", *group.split()], "h", Past(), ByHand("restic-x")).steps
        assert list(step.argv[-2:]) == ["--group-by", "host,paths"]


class TestWithheld:
    """Backups that are incomplete do not push out the last whole one."""

    WORDS = ("forget", "--host", "h", "--keep-last", "1", "--prune")

    def says(self, runs, removed, words=WORDS):
        groups = [{"keep": [], "remove": None}, {"keep": [], "remove": removed}]
        self.reader = Matching({"forget": listing(groups)})
        return withheld(self.reader, words, Past(tuple(runs)))

    def made(self, *outcomes):
        return [
            Made("home", JANUARY, JANUARY, ("/a",), (f"{number}abc",), (),
                 whole=(f"{number}abc",) if outcome == "+" else ())
            for number, outcome in enumerate(outcomes)
        ]  # fmt: skip

    @pytest.mark.parametrize("outcomes", ["", "+", "-", "--", "-+"])
    def test_where_the_newest_is_whole_or_none_is_nothing_is_asked(self, outcomes):
        assert self.says(self.made(*outcomes), []) == ""
        assert self.reader.asked == []

    @pytest.mark.parametrize("row", [{"id": "1abcdef"}, {"id": "fe", "original": "1abcdef"}])
    def test_the_last_whole_one_would_go(self, row):
        told = self.says(self.made("+", "+", "-"), [{"id": "0abcdef"}, row])
        assert told.startswith("nothing is removed, because the last whole backup, 1abc of 20")
        ((*words,),) = self.reader.asked
        assert words == [*self.WORDS[:-1], "--dry-run", "--no-lock", "--json"]

    def test_it_would_stay(self):
        assert self.says(self.made("+", "+", "-", "-"), [{"id": "0ab"}, {"id": "2ab"}]) == ""

    def test_what_is_not_known_to_stay_is_not_removed(self):
        self.reader = Matching({"forget": b"what?"})
        told = withheld(self.reader, self.WORDS, Past(tuple(self.made("+", "-"))))
        assert told.startswith("whether it would remove the last whole backup could not be asked")

    def test_a_rehearsal_removes_nothing(self):
        assert self.says(self.made("+", "-"), [{"id": "0abc"}], (*self.WORDS, "-n")) == ""
        assert self.reader.asked == []
