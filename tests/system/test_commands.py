"""The commands and what they print, as the manual has them."""

import json
import os
import re

import pytest

from made import Made
from vm import MIB, VM, Disk

CONTRIB = os.path.join(os.path.dirname(__file__), "../../contrib")
POINT = re.compile(r"\d{4}-\d\d-\d\dT\d{6}Z(-\d\d)?")


@pytest.fixture(scope="module")
def vm(session):
    with VM(session, "commands", [Disk("vda", 8 * MIB + 1536), Disk("vdb", 4 * MIB)]) as vm:
        vm.start()
        vm.io("vda", "write -P 0x5a 1M 1M")
        yield vm


def refused(result, status, *words):
    """An error is one line, which begins with the program's name and says these words."""
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert lines and lines[-1].startswith("virtbackupfs: ")
    if status == 1:
        assert len(lines) == 1, result.stderr
    for word in words:
        assert word in result.stderr, f"{result.stderr!r} does not say {word!r}"


def test_every_command_tells_how_it_is_used(program):
    overview = program.run("--help").stdout
    for command in ("init", "add", "forget", "capture", "list", "map", "mount"):
        assert command in overview
        assert command in program.run(command, "--help").stdout
    assert re.fullmatch(r"virtbackupfs \d+\.\d+\.\d+\n", program.run("--version").stdout)
    for words in (["list"], ["list", "--json"], ["mount", "-f"], ["capture", "--full", "repo", "vm"]):
        assert program.run(*words, "--version").stdout == program.run("--version").stdout


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["init"], ["init", "a", "b"],
                                       ["list", "--no-such-option", "a"],
                                       ["capture", "a", "b", "--full", "--incremental"],
                                       ["capture", "a", "b", "--codec", "rot13"],
                                       ["capture", "a", "b", "--block-size", "3000"]])
def test_wrong_usage_is_exit_status_2(program, arguments):
    refused(program.run(*arguments, check=False), 2)


def test_what_is_missing_or_wrong_is_told_with_what_would_be_right(program, repository):
    refused(program.run("add", repository.path, "vm1", check=False), 2, "too few arguments, as it takes REPO VM SOURCE")
    for name in ("", "a/b", ".hidden", "-x", "line\nbreak", "x" * 201):
        refused(program.run("add", "--", repository.path, name, "qemu:///session", check=False), 1,
                "cannot be a VM's name: a name is 1 to 200 bytes")
    for source, words in ((f"{repository.path}/nowhere", "nowhere: No such file or directory"),
                          ("elsewhere", "and a directory of backups"),
                          (f"{repository.path}/repository.json", "the image of a disk is written DISK=file:PATH")):
        refused(program.run("add", repository.path, "vm1", source, check=False), 1, words)
    refused(program.run("mount", f"{repository.path}/nowhere", "/mnt", check=False), 1, "cannot open the repository")
    assert "cache_dir_size=" in program.run("mount", "--help").stdout


@pytest.mark.parametrize("options, words", [
    ("--full --differential", "either --full or --differential"),
    ("--no-freeze --freeze", "either --no-freeze or --freeze"),
    ("--codec zstd:23", "from 1 to 22, not 23"),
    ("--codec none:1", "none has no levels"),
    ("--codec lz4:", "from 1 to 65537, not"),
    ("--memory 4000K", "at least 4096K"),
    ("--rate 0", "--rate is a size in bytes"),
    ("--rate 10X", "not 10X"),
    ("--threshold 20000000T", "not 20000000T"),
    ("--on-source-error wait", "report, retry or skip, not wait"),
    ("--on-target-error skip", "report, retry or wait, not skip"),
])
def test_wrong_options_of_capture_are_told_in_words(program, options, words):
    refused(program.run("capture", *options.split(), "a", "b", check=False), 2, words)


def test_init_makes_a_repository_once(program, place):
    program.run("init", f"{place}/new")
    assert os.stat(f"{place}/new").st_mode & 0o777 == 0o700
    assert program.json("list", f"{place}/new") == {"vms": []}
    refused(program.run("init", f"{place}/new", check=False), 1, f"{place}/new")
    os.mkdir(f"{place}/full")
    with open(f"{place}/full/file", "w", encoding="utf-8"):
        pass
    program.person.give(f"{place}/full")
    refused(program.run("init", f"{place}/full", check=False), 1, f"{place}/full")


def test_what_is_no_repository_is_refused(program, place):
    refused(program.run("list", f"{place}/nowhere", check=False), 1, f"{place}/nowhere")
    refused(program.run("list", place, check=False), 1, place)


def test_add_registers_a_vm_of_the_hypervisor(repository, vm):
    repository.add(vm)
    listed = repository.list()
    assert [(each["name"], each["uuid"], each["source"], each["points"]) for each in listed] == [
        ("commands", vm.uuid, "qemu:///session", [])]
    refused(repository.program.run("add", repository.path, "commands", "qemu:///session", check=False), 1, "commands")
    refused(repository.program.run("add", repository.path, "other", "qemu:///session", check=False), 1, "other")
    refused(repository.program.run("add", repository.path, "other", "qemu:///session?domain=commands", check=False), 1)
    refused(repository.program.run("add", repository.path, "../other", "qemu:///session?domain=commands", check=False), 1)
    refused(repository.program.run("add", repository.path, "other", "ftp://host/vm", check=False), 1, "ftp://host/vm")


@pytest.mark.parametrize("source", ["qemu+libssh2://me:s3cret@nowhere.invalid/system", "https://me:s3cret@host/images/x",
                                    "test://me:s3cret@localhost:1/default", "qemu://me:s3cret@host/system?domain="])
def test_no_error_tells_a_password(repository, source):
    result = repository.program.run("add", repository.path, "vm1", source, check=False)
    refused(result, 1)
    assert "s3cret" not in result.stdout + result.stderr


def test_a_vm_can_be_known_by_another_name(repository, vm):
    repository.add(vm, name="mine")
    point = repository.capture("mine")
    assert repository.points("mine")[0]["name"] == point


def test_capture_prints_the_point_and_nothing_else(repository, vm):
    repository.add(vm)
    result = repository.try_capture(vm, check=True)
    name, point = result.stdout.rstrip("\n").split("/")
    assert result.stdout.count("\n") == 1 and name == "commands" and POINT.fullmatch(point)
    assert repository.points(vm)[-1]["name"] == point


def test_list_tells_all_there_is_of_a_point(repository, vm):
    repository.add(vm)
    first = repository.capture(vm)
    vm.io("vda", "write -P 0x77 2M 64k")
    second = repository.capture(vm)
    full, incremental = repository.points(vm)
    assert (full["name"], full["kind"], full["parent"]) == (first, "full", None)
    assert (incremental["name"], incremental["kind"], incremental["parent"]) == (second, "incremental", first)
    for point in (full, incremental):
        assert point["complete"] is True and "reason" not in point
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", point["time"])
        assert point["checkpoint"] in vm.checkpoints() or point is full
        assert [(disk["name"], disk["size"]) for disk in point["disks"]] == [("vda", 8 * MIB + 1536), ("vdb", 4 * MIB)]
        assert point["stored"] >= sum(disk["stored"] for disk in point["disks"])
    assert full["disks"][0]["allocated"] == MIB
    assert incremental["disks"][0]["allocated"] == MIB + 65536
    assert incremental["disks"][0]["kind"] == "incremental"
    # The same by other paths, and as text.
    assert [point["name"] for point in repository.list(f"commands/{first}")[0]["points"]] == [first]
    assert [point["name"] for point in repository.list("commands/latest")[0]["points"]] == [second]
    text = repository.program.run("list", repository.path, "commands").stdout
    assert first in text and second in text and "incremental" in text
    refused(repository.program.run("list", repository.path, "nobody", check=False), 1, "nobody")
    refused(repository.program.run("list", repository.path, "commands/2001-01-01T000000Z", check=False), 1)


def test_only_the_checkpoint_of_the_newest_point_is_kept(repository, vm):
    repository.add(vm)
    before = set(vm.checkpoints())
    for _ in range(3):
        repository.capture(vm)
    assert set(vm.checkpoints()) - before == {repository.points(vm)[-1]["checkpoint"]}


def test_map_tells_which_point_holds_what(repository, vm):
    repository.add(vm)
    vm.io("vdb", "write -P 1 0 1M", "write -z -u 1M 3M")
    first = repository.capture(vm)
    vm.io("vdb", "write -P 2 512k 64k")
    second = repository.capture(vm)
    extents = json.loads(repository.program.run("map", repository.path, "commands/latest/vdb", "--json").stdout)
    at = 0
    for extent in extents:
        assert extent["start"] == at and extent["length"] > 0
        at += extent["length"]
    assert at == 4 * MIB
    data = [(extent["start"], extent["length"], extent["point"]) for extent in extents if extent["data"]]
    assert data == [(0, 524288, first), (524288, 65536, second), (589824, 458752, first)]
    assert all(extent["zero"] for extent in extents if extent["start"] >= MIB)
    text = repository.program.run("map", repository.path, "commands/latest/vdb").stdout
    assert first in text and second in text
    refused(repository.program.run("map", repository.path, "commands/latest/vdz", check=False), 1, "vdz")
    assert repository.program.run("map", repository.path, "commands/latest", check=False).returncode in (1, 2)


def test_forget_leaves_the_points_and_takes_the_checkpoints(repository, vm):
    before = set(vm.checkpoints())
    repository.add(vm)
    point = repository.capture(vm)
    assert set(vm.checkpoints()) != before
    repository.program.run("forget", repository.path, "commands")
    assert set(vm.checkpoints()) == before
    listed = repository.list()
    assert listed[0]["source"] is None and [each["name"] for each in listed[0]["points"]] == [point]
    refused(repository.try_capture(vm), 1, "commands")
    # Once more; the next capture goes on in any case.
    repository.add(vm)
    repository.capture(vm)
    assert len(repository.points(vm)) == 2
    repository.program.run("forget", repository.path, "commands", "--points")
    assert repository.list() == []


def test_another_vm_of_the_same_name_is_refused(repository, session, place):
    with VM(session, "twin", [Disk("vda", 2 * MIB)]) as vm:
        vm.start()
        repository.add(vm)
        repository.capture(vm)
    with VM(session, "twin", [Disk("vda", 2 * MIB)]) as vm:
        vm.start()
        refused(repository.try_capture(vm), 1, "twin")
        assert vm.checkpoints() == []
        assert len(repository.points(vm)) == 1


def test_files_of_a_repository_are_for_its_owner_alone(repository, vm):
    repository.add(vm)
    repository.capture(vm)
    for directory, directories, files in os.walk(repository.path):
        for name in directories:
            assert os.stat(f"{directory}/{name}").st_mode & 0o077 == 0
        for name in files:
            assert os.stat(f"{directory}/{name}").st_mode & 0o077 == 0


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_codecs_and_block_sizes_can_be_chosen(repository, vm, codec):
    repository.add(vm)
    for size in ("4K", "64K", "2M"):
        repository.capture(vm, "--full", "--codec", codec, "--block-size", size)
    assert all(point["complete"] for point in repository.points(vm))


@pytest.fixture(scope="module")
def complete(program):
    """What a shell offers for the last of these words."""
    script = """
        source "$1"
        PATH=$2:$PATH
        COMP_WORDS=(virtbackupfs "${@:3}") COMP_CWORD=$(($# - 2))
        _virtbackupfs
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    def complete(*words):
        return program.person.run("bash", "-c", script, "bash", f"{CONTRIB}/completions/virtbackupfs.bash",
                                  os.path.dirname(program.program.path), *words).stdout.split()

    return complete


def test_every_option_is_in_the_manual_and_completed(program, complete):
    with open(f"{CONTRIB}/man/virtbackupfs.1", encoding="utf-8") as file:
        manual = file.read().replace("\\-", "-")
    commands = re.findall(r"^  ([a-z]+) [A-Z]", program.run("--help").stdout, re.MULTILINE)
    assert len(commands) > 10 and sorted(complete("")) == sorted([*commands, "--help", "--version"])
    sections = re.split(rf'^\.BI "?({"|".join(commands)}) ', manual.split(".SH SOURCES")[0], flags=re.MULTILINE)
    described = dict(zip(sections[1::2], sections[2::2]))
    for command in commands:
        words = set(re.findall(r"--?[a-z][a-z-]*", described[command]))
        for names in re.findall(r"^  (?:(-\w),|   ) (--[a-z-]+)", program.run(command, "--help").stdout, re.MULTILINE):
            if names[1] not in ("--help", "--version"):
                assert words.intersection(names), f"{command} {names} is not in the manual"
                assert set(complete(command, "-")).intersection(names), f"{command} {names} is not completed"


def test_a_shell_completes_commands_options_and_paths(program, place, complete):
    made = Made(program.person, place, "--points", "2", "--disk", "vda=1M", "--disk", "sdb=1M")
    assert complete("ca") == ["capture"]
    assert complete("capture", "--thr") == ["--threshold"]
    assert complete("list", made.path, "") == ["vm1"]
    assert complete("list", "--json", made.path, "vm1/") == ["vm1/latest", *(f"vm1/{point}" for point in made.points)]
    assert complete("diff", made.path, "vm1/latest/vda", f"vm1/{made.points[0]}/s") == [f"vm1/{made.points[0]}/sdb"]
    assert complete("list", place, "") == []
