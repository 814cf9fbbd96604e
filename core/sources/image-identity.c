#include "sources/image-identity.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "util/io.h"
#include "util/text.h"
#include "util/xml.h"

static int file_identity(const char *path, bool local, char **ret) {
        struct statx st;

        if (!local || statx(AT_FDCWD, path, 0, STATX_INO | STATX_BTIME, &st) < 0)
                return text_format(ret, "file:%s", path);
        if (!(st.stx_mask & STATX_BTIME))
                return text_format(ret, "file:%s#%llx", path, (unsigned long long) st.stx_ino);
        return text_format(ret, "file:%s#%llx.%llx.%x", path, (unsigned long long) st.stx_ino,
                           (unsigned long long) st.stx_btime.tv_sec, (unsigned) st.stx_btime.tv_nsec);
}

static int nvme_identity(const xmlNode *source, char **ret) {
        const xmlNode *address = xml_child(source, "address");
        CLEANUP(freep) char *space = xml_attribute(source, "namespace");
        CLEANUP(freep) char *domain = xml_attribute(address, "domain");
        CLEANUP(freep) char *bus = xml_attribute(address, "bus");
        CLEANUP(freep) char *slot = xml_attribute(address, "slot");
        CLEANUP(freep) char *function = xml_attribute(address, "function");

        return text_format(ret, "nvme:%s:%s:%s.%s/%s", domain ?: "", bus ?: "", slot ?: "", function ?: "", space ?: "");
}

int image_identity(const char *type, const xmlNode *source, bool local, char **ret) {
        CLEANUP(freep) char *text = NULL;
        int rc;

        if (strcmp(type, "file") == 0) {
                CLEANUP(freep) char *path = xml_attribute(source, "file");

                rc = file_identity(path ?: "", local, &text);
        } else if (strcmp(type, "block") == 0) {
                CLEANUP(freep) char *path = xml_attribute(source, "dev");

                rc = text_format(&text, "block:%s", path ?: "");
        } else if (strcmp(type, "network") == 0) {
                CLEANUP(freep) char *protocol = xml_attribute(source, "protocol");
                CLEANUP(freep) char *name = xml_attribute(source, "name");

                rc = text_format(&text, "network:%s:%s", protocol ?: "", name ?: "");
        } else if (strcmp(type, "volume") == 0) {
                CLEANUP(freep) char *pool = xml_attribute(source, "pool");
                CLEANUP(freep) char *volume = xml_attribute(source, "volume");

                rc = text_format(&text, "volume:%s/%s", pool ?: "", volume ?: "");
        } else if (strcmp(type, "nvme") == 0) {
                rc = nvme_identity(source, &text);
        } else {
                rc = text_format(&text, "other:%s", type);
        }
        if (rc < 0)
                return -ENOMEM;
        *ret = STEAL_PTR(text);
        return 0;
}

int image_path_identity(const char *path, char **ret) {
        struct stat st;
        char *text;
        int rc;

        if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
                rc = text_format(&text, "block:%s", path);
        else
                rc = file_identity(path, true, &text);
        if (rc < 0)
                return -ENOMEM;
        *ret = text;
        return 0;
}

bool image_is_old_qcow2(const char *path) {
        CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        uint32_t header[2];

        if (fd < 0 || pread_whole(fd, header, sizeof header, 0) < 0)
                return false;
        return ntohl(header[0]) == 0x514649fb && ntohl(header[1]) == 2;
}
