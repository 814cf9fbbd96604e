#include "sources/image-format.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"

#define HEAD_SIZE (64u << 10) /* bytes that are looked at */
#define QCOW2_EXTERNAL_DATA 4u /* an incompatible feature */
#define VMDK_DESCRIPTOR 512u
#define VMDK_DESCRIPTOR_SIZE 10240u

static uint32_t be32(const unsigned char *at) {
        uint32_t n;

        memcpy(&n, at, sizeof n);
        return be32toh(n);
}

static uint64_t be64(const unsigned char *at) {
        uint64_t n;

        memcpy(&n, at, sizeof n);
        return be64toh(n);
}

/* Each: whether the header names another file. */
static bool qcow2_names_file(const unsigned char *head) {
        bool has_features = be32(head + 4) >= 3;

        return be64(head + 8) != 0 || (has_features && (be64(head + 72) & QCOW2_EXTERNAL_DATA));
}

static bool qcow_names_file(const unsigned char *head) {
        return be64(head + 8) != 0;
}

static bool vmdk_names_file(const unsigned char *head) {
        uint64_t capacity;

        memcpy(&capacity, head + 12, sizeof capacity);
        /* Without a capacity the whole of it is a description, of other files. */
        return capacity == 0 ||
               memmem(head + VMDK_DESCRIPTOR, VMDK_DESCRIPTOR_SIZE, "parentFileNameHint", strlen("parentFileNameHint"));
}

static bool no_file(const unsigned char *head) {
        (void) head;
        return false;
}

static bool some_file(const unsigned char *head) {
        (void) head;
        return true;
}

static const struct {
        const char *format;
        size_t offset, length;
        const char *magic;
        bool (*names_file)(const unsigned char *head);
} formats[] = {
        { "qcow2", 0, 8, "QFI\xfb\0\0\0\2", qcow2_names_file },
        { "qcow2", 0, 8, "QFI\xfb\0\0\0\3", qcow2_names_file },
        { "qcow", 0, 8, "QFI\xfb\0\0\0\1", qcow_names_file },
        { "vmdk", 0, 4, "KDMV", vmdk_names_file },
        { "vmdk", 0, 4, "COWD", some_file },
        { "vmdk", 0, 21, "# Disk DescriptorFile", some_file },
        { "vhdx", 0, 8, "vhdxfile", no_file },
        { "vpc", 0, 8, "conectix", no_file },
        { "vdi", 64, 4, "\x7f\x10\xda\xbe", no_file },
        { "qed", 0, 4, "QED\0", some_file },
        { "parallels", 0, 16, "WithoutFreeSpace", no_file },
        { "parallels", 0, 16, "WithouFreSpacExt", no_file },
        { "luks", 0, 6, "LUKS\xba\xbe", some_file },
};

static int guess(const unsigned char *head, const char *path, const char **ret, Reason *reterr) {
        for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
                if (memcmp(head + formats[i].offset, formats[i].magic, formats[i].length) != 0)
                        continue;
                if (formats[i].names_file(head))
                        return fail(reterr, -ENOTSUP, "%s looks like %s that needs other files or keys, which may be what a "
                                                      "guest wrote into a raw image: say format=%s in its URI if it is "
                                                      "that, else format=raw", path, formats[i].format, formats[i].format);
                *ret = formats[i].format;
                return 0;
        }
        *ret = "raw";
        return 0;
}

int image_format_guess(const char *path, const char **ret, Reason *reterr) {
        CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        CLEANUP(freep) unsigned char *head = calloc(1, HEAD_SIZE);
        struct stat st;
        ssize_t n;

        if (fd < 0 || fstat(fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot open the image %s", path);
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return fail(reterr, -EINVAL, "%s is neither a file nor a block device", path);
        if (!head)
                return fail_oom(reterr);
        n = pread(fd, head, HEAD_SIZE, 0);
        if (n < 0)
                return fail_errno(reterr, -errno, "cannot read the image %s", path);
        return guess(head, path, ret, reterr);
}
