"""File systems that nothing but a Linux kernel reads, by way of the small virtual machine that guestmount boots."""

import os
import shutil
import subprocess

import pytest
from test_files import capture, make_tree, same_tree, shown
from test_partitions import MIB

HAS_MODULES = os.path.isdir("/lib/modules")


def environment(person, guest, place):
    """Debian's kernel, which need not be installed; what is booted is made below the place."""
    version, = os.listdir(f"{guest}/modules")
    return {**person.environment, "SUPERMIN_KERNEL": f"{guest}/kernel", "SUPERMIN_KERNEL_VERSION": version,
            "SUPERMIN_MODULES": f"{guest}/modules/{version}", "LIBGUESTFS_BACKEND": "direct", "TMPDIR": place}


@pytest.mark.skipif(not HAS_MODULES, reason="needs /lib/modules, if only empty, without which supermin makes nothing")
@pytest.mark.skipif(os.geteuid() == 0, reason="root uses the kernel")
def test_an_ordinary_user_copies_files_out_of_btrfs(program, repository, guest, place):
    tree, image = f"{place}/tree", f"{place}/disk.img"
    os.mkdir(tree)
    make_tree(tree)
    with open(image, "wb") as file:
        file.truncate(120 * MIB)
    mkfs = shutil.which("mkfs.btrfs", path="/usr/sbin:/sbin")
    subprocess.run([mkfs, "-q", "-r", tree, image], check=True, capture_output=True)
    capture(repository, image)
    with shown(program, repository, "vm1/latest", place, timeout=600,
               env=environment(program.person, guest, place)) as result:
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{place}/files/vda\n"
        assert same_tree(tree, f"{place}/files/vda") == ""
        with pytest.raises(OSError):
            with open(f"{place}/files/vda/new", "wb"):
                pass
