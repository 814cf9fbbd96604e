/* core/restore/target-device.c - a block device, written around the page cache. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "restore/in-use.h"
#include "restore/target-kinds.h"
#include "util/bytes.h"
#include "util/io.h"

#define ZERO_MAX (UINT64_C(64) << 20) /* bytes of one request: some devices write them one by one */

typedef struct DeviceTarget {
        DiskTarget target;
        int fd;
} DeviceTarget;

static bool device_claims(const TargetRequest *request) {
        struct stat st;

        return stat(request->name, &st) == 0 && S_ISBLK(st.st_mode);
}

static void device_close(DiskTarget *base, bool keep) {
        DeviceTarget *target = (DeviceTarget *) base;

        (void) keep;
        close_fd(&target->fd);
        free(target);
}

static int open_device(DeviceTarget *target, const char *path, Reason *reterr) {
        /* Exclusive: the kernel refuses it where a file system, a volume manager, … has the device, or a part of it. */
        const int flags = O_RDWR | O_EXCL | O_CLOEXEC | O_NONBLOCK;

        target->fd = open(path, flags | O_DIRECT);
        if (target->fd < 0 && errno == EINVAL)
                target->fd = open(path, flags);
        if (target->fd < 0 && errno == EBUSY)
                return fail(reterr, -EBUSY, "%s is in use: it is mounted, or something else is made of it", path);
        if (target->fd < 0)
                return fail_errno(reterr, -errno, "cannot write to %s", path);
        return file_check_unlocked(target->fd, path, reterr);
}

static int learn(DeviceTarget *target, const char *path, Reason *reterr) {
        int sector = 0, read_only = 0;

        if (ioctl(target->fd, BLKGETSIZE64, &target->target.size) < 0 || ioctl(target->fd, BLKSSZGET, &sector) < 0 ||
            ioctl(target->fd, BLKROGET, &read_only) < 0)
                return fail_errno(reterr, -errno, "cannot tell the size of %s", path);
        if (read_only)
                return fail(reterr, -EROFS, "%s can be read only", path);
        if (!is_power_of_2((uint64_t) sector))
                return fail(reterr, -EINVAL, "%s has sectors of %d bytes", path, sector);
        target->target.grain = (uint32_t) max_u64((uint64_t) sector, TARGET_GRAIN);
        return 0;
}

static int device_open(DiskTarget *base, const TargetRequest *request, Reason *reterr) {
        DeviceTarget *target = (DeviceTarget *) base;
        int rc;

        base->in_place = true;
        target->fd = -1;
        base->shown = strdup(request->name);
        rc = base->shown ? open_device(target, request->name, reterr) : fail_oom(reterr);
        return rc == 0 ? learn(target, request->name, reterr) : rc;
}

static int device_write(DiskTarget *base, void *connection, const void *buffer, size_t length, uint64_t offset,
                        Reason *reterr) {
        int rc = pwrite_whole(((DeviceTarget *) base)->fd, buffer, length, offset);

        (void) connection;
        return rc < 0 ? fail_errno(reterr, rc, "cannot write to %s", base->shown) : 0;
}

static int device_zero(DiskTarget *base, void *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        static const int ways[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };
        const DeviceTarget *target = (const DeviceTarget *) base;
        size_t way = 0;

        (void) connection;
        while (length > 0) {
                uint64_t part = min_u64(length, ZERO_MAX);

                if (base->cancel && atomic_load(base->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                if (fallocate(target->fd, ways[way], (off_t) offset, (off_t) part) == 0) {
                        offset += part;
                        length -= part;
                        continue;
                }
                if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
                        return fail_errno(reterr, -errno, "cannot write zeroes to %s", base->shown);
                if (++way == sizeof ways / sizeof *ways)
                        return -EOPNOTSUPP;
        }
        return 0;
}

static int device_read(DiskTarget *base, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        int rc = pread_whole(((DeviceTarget *) base)->fd, buffer, length, offset);

        (void) connection;
        return rc < 0 ? fail_errno(reterr, rc, "cannot read %s", base->shown) : 0;
}

static int device_sync(DiskTarget *base, void *connection, Reason *reterr) {
        (void) connection;
        return fsync(((DeviceTarget *) base)->fd) < 0 ? fail_errno(reterr, -errno, "cannot sync %s", base->shown) : 0;
}

const TargetOps target_device_ops = {
        .name = "device",
        .raw_only = "a block device",
        .size = sizeof(DeviceTarget),
        .claims = device_claims,
        .open = device_open,
        .write = device_write,
        .zero = device_zero,
        .read = device_read,
        .sync = device_sync,
        .close = device_close,
};
