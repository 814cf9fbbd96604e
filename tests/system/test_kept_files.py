"""What is kept with a point beside its disks."""

import json
import os
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from mount import mounted
from repository import without_partitions
from vm import MIB, VM, Disk


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_the_definition_is_kept_without_its_secrets(session, repository, program, place):
    screen = "<graphics type='vnc' passwd='sesame42'><listen type='socket'/></graphics><video><model type='none'/></video>"
    with VM(session, "secret", [Disk("vda", 2 * MIB)], extra=screen) as vm:
        vm.start()
        repository.add(vm)
        point = repository.capture(vm)
        with mounted(program, repository.path, place) as mount:
            text = read(mount / f"secret/{point}/domain.xml").decode()
        for directory, _, files in os.walk(repository.path):
            for name in files:
                assert b"sesame42" not in read(f"{directory}/{name}"), name
    kept = ElementTree.fromstring(text)
    assert kept.findtext("name") == "secret" and kept.findtext("uuid") == vm.uuid
    assert kept.find("devices/graphics").get("type") == "vnc"
    assert kept.find("devices/disk/source").get("file") == vm.disk("vda").path


def test_a_definition_that_was_kept_defines_the_vm_again(session, repository, program, place):
    with VM(session, "again", [Disk("vda", 2 * MIB)]) as vm:
        vm.start()
        repository.add(vm)
        point = repository.capture(vm)
        vm.shut_down()
        vm.virsh("undefine", "--checkpoints-metadata")
        with mounted(program, repository.path, place) as mount:
            with open(f"{vm.directory}/kept.xml", "wb") as file:
                file.write(read(mount / f"again/{point}/domain.xml"))
        vm.virsh_plain("define", f"{vm.directory}/kept.xml")
        vm.virsh("start", "--paused")
        assert repository.kinds(vm, repository.capture(vm)) == {"vda": "incremental"}


def test_the_nvram_of_a_uefi_guest_is_kept(session, repository, program, place):
    firmware = ("<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
                f"<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{session.files}/uefi.nvram</nvram>")
    with VM(session, "uefi", [Disk("vda", 2 * MIB)], os_extra=firmware) as vm:
        vm.start()
        repository.add(vm)
        point = repository.capture(vm)
        with mounted(program, repository.path, place) as mount:
            assert read(mount / f"uefi/{point}/nvram") == read(f"{session.files}/uefi.nvram")
            assert read(mount / f"uefi/{point}/loader") == read("/usr/share/OVMF/OVMF_CODE_4M.fd")


def test_the_kernel_and_its_initrd_are_kept_once(session, repository, program, place, guest):
    os.symlink(f"{guest}/kernel", f"{place}/vmlinuz")
    boot = f"<kernel>{place}/vmlinuz</kernel><initrd>{guest}/initrd</initrd>"
    with VM(session, "direct", [Disk("vda", 2 * MIB)], os_extra=boot) as vm:
        vm.start()
        repository.add(vm)
        points = [repository.capture(vm) for _ in range(3)]
        with mounted(program, repository.path, place) as mount:
            for point in points:
                assert read(mount / f"direct/{point}/kernel") == read(f"{guest}/kernel")
                assert read(mount / f"direct/{point}/initrd") == read(f"{guest}/initrd")
        kept = repository.stored_files(vm, "data/*/kernel")
        assert len(kept) == 3 and len({os.stat(path).st_ino for path in kept}) == 1
        length = os.stat(kept[0]).st_size
        first, *others = (repository.point(vm, point)["stored"] for point in points)
        assert first > length and max(others) < length, "what takes no room is not counted as stored"


def test_a_file_that_is_not_there_is_a_warning(session, repository, guest):
    boot = f"<kernel>{guest}/kernel</kernel><initrd>{session.files}/initrd-that-goes</initrd>"
    shutil.copy(f"{guest}/initrd", f"{session.files}/initrd-that-goes")
    with VM(session, "going", [Disk("vda", 2 * MIB)], os_extra=boot) as vm:
        vm.start()
        os.unlink(f"{session.files}/initrd-that-goes")
        repository.add(vm)
        result = repository.try_capture(vm, check=True)
        assert f"initrd {session.files}/initrd-that-goes is not kept" in result.stderr, result.stderr


def check_tpm(hypervisor, repository, program, place, name, state):
    with VM(hypervisor, name, [Disk("vda", 2 * MIB)],
            extra="<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>") as vm:
        vm.start()
        repository.add(vm)
        point = repository.capture(vm)
        with mounted(program, repository.path, place) as mount:
            kept = read(mount / f"{name}/{point}/tpm2-00.permall")
        assert kept and kept == read(f"{state}/{vm.uuid}/tpm2/tpm2-00.permall")


def test_the_state_of_a_tpm_is_kept(session, repository, program, place, person):
    check_tpm(session, repository, program, place, "trusted", f"{person.directory}/.config/libvirt/qemu/swtpm")


@pytest.mark.needs_root
def test_root_keeps_the_state_of_a_tpm_too(system, repository, program, place):
    check_tpm(system, repository, program, place, "vbfs-trusted", "/var/lib/libvirt/swtpm")


def test_what_a_point_says_of_itself_is_what_list_says(session, repository, program, place):
    with VM(session, "saying", [Disk("vda", 2 * MIB)]) as vm:
        vm.start()
        repository.add(vm)
        names = [repository.capture(vm), repository.capture(vm)]
        with mounted(program, repository.path, place) as mount:
            for name in names:
                text = read(mount / f"saying/{name}/info.json")
                assert os.stat(mount / f"saying/{name}/info.json").st_size == len(text)
                said = json.loads(text)
                assert said.pop("vm") == "saying"
                assert without_partitions(said) == repository.point(vm, name)
                shown = read(mount / f"saying/{name}/vda.map").decode()
                assert shown == program.run("map", repository.path, f"saying/{name}/vda").stdout
