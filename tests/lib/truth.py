"""What each point of a VM must show: images that QEMU made of its disks at that moment."""

import os

from mount import mounted
from repository import same_image


class Truth:
    """Nothing may write to the VM's disks while references are taken and a capture begins."""

    def __init__(self, repository, vm, place):
        self.repository, self.vm, self.place = repository, vm, place
        self.points = {}  # name: {target: path}
        self.taken = 0

    def look(self, targets=None):
        """References of the disks as they are now."""
        self.taken += 1
        directory = f"{self.place}/truth{self.taken}"
        os.mkdir(directory)
        return {target: self.vm.reference(target, f"{directory}/{target}.raw")
                for target in targets or [disk.target for disk in self.vm.disks]}

    def keep(self, point, references):
        self.points[point] = references
        return point

    def capture(self, *options, targets=None):
        """Takes a point with its references; its name."""
        references = self.look(targets)
        return self.keep(self.repository.capture(self.vm, *options), references)

    def check_in(self, mount):
        """Every point shows what it must, there is no other, and none is called incomplete."""
        listed = self.repository.points(self.vm)
        assert [point["name"] for point in listed] == sorted(self.points)
        for point in listed:
            assert point["complete"], point
            references = self.points[point["name"]]
            directory = f"{mount.path}/{self.vm.name}/{point['name']}"
            assert {name for name in os.listdir(directory) if name.endswith(".raw")} == {f"{t}.raw" for t in references}
            for target, reference in references.items():
                assert same_image(f"{directory}/{target}.raw", reference), f"{point['name']}/{target} is another"

    def check(self):
        with mounted(self.repository.program, self.repository.path, self.place) as mount:
            self.check_in(mount)
