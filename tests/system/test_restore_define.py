"""A VM made of a point: restored, defined, started, and nothing left of it where that fails."""

import os
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from repository import Repository
from vm import MIB, VM, Disk

FIRMWARE = ("<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
            "<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{}</nvram>")
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
CARD = "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>"


class Made:
    """A VM with a point of it and images of its disks; the names of the VMs that are made of it are told to it."""

    def __init__(self, hypervisor, program, place, name, **options):
        self.vm = VM(hypervisor, name, [Disk("vda", 20 * MIB), Disk("vdb", 3 * MIB)], **options)
        self.place, self.names = place, []
        self.repository = Repository(program, f"{place}/repository").init()
        self.images = f"{self.vm.directory}/made"
        os.mkdir(self.images)
        self.vm.person.give(self.images)
        os.chmod(self.images, 0o711)

    def capture(self):
        self.vm.start()
        self.vm.io("vda", "write -P 5 1M 8M")
        self.vm.io("vdb", "write -P 6 0 1M")
        self.repository.add(self.vm)
        self.reference = {target: self.vm.reference(target, f"{self.place}/{target}.raw") for target in ("vda", "vdb")}
        self.repository.capture(self.vm)

    def restore(self, *options, target=True, name=None, **more):
        self.names.append(name or self.vm.name)
        return self.repository.program.run("restore", "--define", "-c", self.vm.hypervisor.uri, *options,
                                           *(["--name", name] if name else []), self.repository.path,
                                           f"{self.vm.name}/latest",
                                           *([self.images] if target else []), **more)

    def definition(self, name):
        return ElementTree.fromstring(self.vm.virsh_plain("dumpxml", name).stdout)

    def check_disks(self, name, directory, format="qcow2"):
        sources = [node.get("file") for node in self.definition(name).findall("devices/disk/source")]
        assert sources == [f"{directory}/{name}-{target}.{format}" for target in ("vda", "vdb")]
        for source, target in zip(sources, ("vda", "vdb")):
            subprocess.run(["qemu-img", "compare", "-U", "-q", "-f", format, "-F", "raw", source, self.reference[target]],
                           check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in self.names:
            self.vm.virsh_plain("destroy", name, check=False)
            self.vm.virsh_plain("undefine", "--nvram", name, check=False)
        self.vm.remove()


def comes_up_beside_the_first(hypervisor, program, place, name):
    extra = TPM + CARD
    with Made(hypervisor, program, place, name, extra=extra,
              os_extra=FIRMWARE.format(f"{hypervisor.files}/{name}.nvram")) as made:
        made.capture()
        second = f"{name}-2"
        result = made.restore("--start", name=second)
        assert result.stdout == f"{second}\n"
        assert made.vm.virsh_plain("domstate", second).stdout.strip() == "running"
        made.check_disks(second, made.images)
        definition = made.definition(second)
        assert definition.findtext("uuid") != made.vm.uuid
        assert definition.find("devices/interface/mac").get("address") != "52:54:00:11:22:33"
        assert definition.findtext("os/nvram") == f"{made.images}/{second}-nvram"
        assert definition.findtext("os/loader") == "/usr/share/OVMF/OVMF_CODE_4M.fd"
        assert sorted(os.listdir(made.images)) == [f"{second}-nvram", f"{second}-vda.qcow2", f"{second}-vdb.qcow2"]
        clash = made.restore(check=False)
        assert clash.returncode == 1 and f"there is a VM named {name}" in clash.stderr, clash.stderr
        clash = made.restore("--keep-identity", name=f"{name}-3", check=False)
        assert clash.returncode == 1 and "UUID already" in clash.stderr, clash.stderr


def test_a_vm_is_made_beside_the_one_that_it_was_taken_from(session, program, place):
    comes_up_beside_the_first(session, program, place, "first")


@pytest.mark.needs_root
def test_root_makes_a_vm_beside_the_one_that_it_was_taken_from(system, program, place):
    comes_up_beside_the_first(system, program, place, "vbfs-first")


def test_a_vm_that_is_gone_comes_back_as_it_was(session, program, place):
    with Made(session, program, place, "gone", extra=TPM + CARD) as made:
        made.capture()
        state = f"{made.vm.person.directory}/.config/libvirt/qemu/swtpm/{made.vm.uuid}/tpm2/tpm2-00.permall"
        with open(state, "rb") as file:
            known = file.read()
        made.vm.destroy()
        made.vm.virsh("undefine", "--checkpoints-metadata")
        assert not os.path.exists(state)
        made.restore("--keep-identity", "-f", "raw")
        definition = made.definition("gone")
        assert definition.findtext("uuid") == made.vm.uuid
        assert definition.find("devices/interface/mac").get("address") == "52:54:00:11:22:33"
        made.check_disks("gone", made.images, "raw")
        with open(state, "rb") as file:
            assert file.read() == known
        made.vm.virsh("start", "--paused")


def test_disks_go_into_a_pool(session, program, place):
    with Made(session, program, place, "pooled") as made:
        made.capture()
        session.virsh("pool-create-as", "vbfs-pool", "dir", "--target", made.images)
        try:
            made.restore("--pool", "vbfs-pool", target=False, name="swimmer")
            made.check_disks("swimmer", made.images)
            assert "swimmer-vda.qcow2" in session.virsh("vol-list", "vbfs-pool").stdout
            none = made.restore("--pool", "nowhere", target=False, name="diver", check=False)
            assert none.returncode == 1 and "no storage pool nowhere" in none.stderr, none.stderr
        finally:
            session.virsh("pool-destroy", "vbfs-pool")


def test_nothing_is_left_of_a_vm_that_does_not_start(session, program, place):
    with Made(session, program, place, "stuck", extra=TPM, os_extra=FIRMWARE.format(f"{session.files}/stuck.nvram")) as made:
        made.vm.extra += "<interface type='network'><source network='not-here'/></interface>"
        made.vm.define()
        made.repository.add(made.vm)
        made.repository.capture(made.vm)
        result = made.restore("--start", name="unstuck", check=False)
        assert result.returncode == 1, result.stderr
        assert "the VM does not start" in result.stderr and "not-here" in result.stderr, result.stderr
        assert os.listdir(made.images) == []
        assert "unstuck" not in session.virsh("list", "--all", "--name").stdout
        with open(f"{made.images}/unstuck-vdb.qcow2", "wb"):
            pass
        blocked = made.restore(name="unstuck", check=False)
        assert blocked.returncode == 1 and "unstuck-vdb.qcow2 is there already" in blocked.stderr
        assert os.listdir(made.images) == ["unstuck-vdb.qcow2"]
