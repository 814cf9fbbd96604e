"""Who runs a command: root, or an ordinary user with a home and a runtime directory of its own."""

import grp
import os
import pwd
import shutil
import subprocess

# What a person takes along from the environment of the tests.
KEPT = ("PATH", "LANG", "TZ", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS", "VIRTBACKUPFS_TOOLS")


class Person:
    """A user. directory is its home; the runtime directory (libvirt's sockets) lies in it."""

    def __init__(self, uid, gid, directory, groups=()):
        self.uid, self.gid, self.groups = uid, gid, list(groups)
        self.name = pwd.getpwuid(uid).pw_name
        self.directory = directory
        self.runtime = f"{directory}/run"
        for path in (self.directory, self.runtime):
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, 0o700)
            self.give(path)
        self.environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.environment.update(HOME=directory, XDG_RUNTIME_DIR=self.runtime, XDG_CONFIG_HOME=f"{directory}/.config",
                                XDG_CACHE_HOME=f"{directory}/.cache", LC_ALL="C.UTF-8")
        if uid != 0:  # libvirt's session would end with the system's bus, which tests by root start and end
            self.environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={self.runtime}/no-bus"

    @property
    def is_root(self):
        return self.uid == 0

    def give(self, path):
        """Makes the path this person's own."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def popen(self, arguments, **options):
        options.setdefault("env", self.environment)
        if os.geteuid() != self.uid:
            options.update(user=self.uid, group=self.gid, extra_groups=self.groups)
        return subprocess.Popen([str(argument) for argument in arguments], **options)

    def run(self, *arguments, check=True, timeout=180, input=None, **options):
        """Runs to the end, with its output as text. With check a failure fails the test, showing what was printed."""
        process = self.popen(arguments, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        result = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(result.args)}: exit status {result.returncode}\n{out}{err}")
        return result


def ordinary_user(name, directory, extra_group=None):
    """The user of this name for root to act as, made where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        useradd = shutil.which("useradd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        subprocess.run([useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
                        "--shell", "/usr/sbin/nologin", name], check=True)
        entry = pwd.getpwnam(name)
    groups = [grp.getgrnam(extra_group).gr_gid] if extra_group else []
    return Person(entry.pw_uid, entry.pw_gid, directory, groups)
