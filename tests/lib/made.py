"""Repositories of random points (make-repository), with the images that their disks must equal."""

import os
import shutil


class Made:
    """path: the repository; images: {point: {disk: path of the raw image}}, for the points that have some."""

    def __init__(self, person, place, *options, name="made"):
        tool = os.path.join(os.path.dirname(place), "make-repository")
        if not os.path.exists(tool):
            shutil.copy(os.path.join(os.environ["VIRTBACKUPFS_TOOLS"], "make-repository"), tool)
        self.person, self.tool = person, tool
        self.path, self._images = f"{place}/{name}", f"{place}/{name}-images"
        os.makedirs(self._images, exist_ok=True)
        person.give(self._images)
        self.points = self.more(*options)

    def more(self, *options):
        """Makes another VM in it (--vm NAME); its points."""
        return self.person.run(self.tool, "--images", self._images, *options, self.path).stdout.split()

    @property
    def images(self):
        return {point: {name.removesuffix(".raw"): os.path.join(self._images, point, name)
                        for name in os.listdir(os.path.join(self._images, point))}
                for point in sorted(os.listdir(self._images))}

    def stored(self, *parts, vm="vm1"):
        """The path of something that the VM has stored."""
        return os.path.join(self.path, "vms", vm, *parts)

    def capture_directory(self, point, vm="vm1"):
        """Where the files of a point lie."""
        data = self.stored("data", vm=vm)
        return next(os.path.join(data, name) for name in os.listdir(data) if name.startswith(point + "."))


def flip_bit(path, offset, bit=0):
    """Turns one bit of a file round."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))
