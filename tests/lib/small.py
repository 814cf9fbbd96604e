"""Small file systems, for root to make."""

import contextlib
import os
import shutil
import subprocess


@contextlib.contextmanager
def small_file_system(path, mib, owner=None):
    os.makedirs(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0755", "none", path], check=True)
    try:
        if owner:
            shutil.chown(path, owner, owner)
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)
