/* core/sources/image-identity.h - a text that tells whether an image is still the same one.
 *
 * file:/PATH#INODE.BORN     INODE and BORN (when the file was made, where the file system knows it) in hexadecimal;
 *                           the path alone where the file cannot be looked at
 * block:/dev/…   network:PROTOCOL:NAME   volume:POOL/NAME   nvme:ADDRESS/NAMESPACE   other:TYPE */
#pragma once

#include <libxml/tree.h>
#include <stdbool.h>

/* type and source as in the domain XML: <disk type=…><source …/>. The caller frees *ret. -ENOMEM. */
int image_identity(const char *type, const xmlNode *source, bool local, char **ret);

/* The same for a file or block device of this machine, by its path alone. */
int image_path_identity(const char *path, char **ret);

/* Whether it is a qcow2 image of version 2 (compat=0.10), as far as it can be read. */
bool image_is_old_qcow2(const char *path);
