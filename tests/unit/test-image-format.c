#include "sources/image-format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "unit.h"

static char path[] = "/tmp/test-image-format.XXXXXX";

static int guess(const void *head, size_t length, const char **ret, Reason *reterr) {
        int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

        CHECK_INT(write(fd, head, length), (ssize_t) length);
        close(fd);
        return image_format_guess(path, ret, reterr);
}

static void formats_are_known_by_their_magic(void) {
        static const struct {
                const char *format, *magic;
                size_t offset, length;
        } known[] = {
                { "qcow2", "QFI\xfb\0\0\0\3", 0, 8 }, { "qcow2", "QFI\xfb\0\0\0\2", 0, 8 },
                { "qcow", "QFI\xfb\0\0\0\1", 0, 8 },  { "vhdx", "vhdxfile", 0, 8 },
                { "vpc", "conectix", 0, 8 },          { "vdi", "\x7f\x10\xda\xbe", 64, 4 },
                { "raw", "QFI\xfb\0\0\0\4", 0, 8 },   { "raw", "QFI", 0, 3 },
                { "raw", "", 0, 0 },
        };

        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
                unsigned char head[512] = { 0 };
                const char *format = NULL;

                memcpy(head + known[i].offset, known[i].magic, known[i].length);
                CHECK_INT(guess(head, known[i].length == 0 ? 0 : sizeof head, &format, NULL), 0);
                CHECK_TEXT(format, known[i].format);
        }
}

static void headers_that_name_files_are_not_believed(void) {
        static const char extents[] = "# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0\n";
        unsigned char head[2048] = "QFI\xfb\0\0\0\3";
        const char *format;
        Reason reason = REASON_INIT;

        head[15] = 104; /* a backing file's name */
        CHECK_INT(guess(head, sizeof head, &format, &reason), -ENOTSUP);
        CHECK_SAYS(reason, "say format=qcow2");
        head[15] = 0;
        head[79] = 4; /* a data file */
        CHECK_INT(guess(head, sizeof head, &format, &reason), -ENOTSUP);
        CHECK_INT(guess(extents, sizeof extents, &format, &reason), -ENOTSUP);
        memset(head, 0, sizeof head);
        memcpy(head, "KDMV", 4);
        CHECK_INT(guess(head, sizeof head, &format, &reason), -ENOTSUP);
        head[12] = 1;
        CHECK_INT(guess(head, sizeof head, &format, &reason), 0);
        CHECK_TEXT(format, "vmdk");
        strcpy((char *) head + 600, "parentFileNameHint=\"/etc/shadow\"");
        CHECK_INT(guess(head, sizeof head, &format, &reason), -ENOTSUP);
}

static void what_is_no_file_is_not_looked_at(void) {
        const char *format;
        Reason reason = REASON_INIT;

        CHECK_INT(image_format_guess("/dev/null", &format, &reason), -EINVAL);
        CHECK_SAYS(reason, "neither a file nor a block device");
        CHECK_INT(image_format_guess("/tmp", &format, &reason), -EINVAL);
        CHECK_INT(image_format_guess("/nowhere", &format, &reason), -ENOENT);
}

int main(void) {
        int fd = mkstemp(path);

        CHECK(fd >= 0);
        close(fd);
        RUN(formats_are_known_by_their_magic);
        RUN(headers_that_name_files_are_not_believed);
        RUN(what_is_no_file_is_not_looked_at);
        unlink(path);
        return unit_result();
}
