#include "mount/node.h"

#include <errno.h>
#include <sys/stat.h>

#include "repository/vm.h"

#define FILE_BITS 19
#define DISK_STRIDE 256
#define OF_DISK_MAP 1 /* within a stride */
#define OF_DISK_CHANGES 2
#define OF_DISK_PARTITIONS 3

enum {
        FILE_DIRECTORY = 0,
        FILE_TRIGGER = 1, /* of a VM */
        FILE_LATEST = 2,
        FILE_DOMAIN = 1, /* of a point */
        FILE_INFO = 2,
        FILE_KEPT = 3,
        FILE_DISKS = 64,
};

_Static_assert(2 * SERIAL_BITS + FILE_BITS <= 63, "inode numbers are positive");
_Static_assert(FILE_KEPT + NODE_KEPT_MAX <= FILE_DISKS, "kept files end before the disks");
_Static_assert(OF_DISK_PARTITIONS + NODE_PARTITION_MAX <= DISK_STRIDE, "partitions fit in");
_Static_assert(FILE_DISKS + NODE_DISK_MAX * DISK_STRIDE <= 1 << FILE_BITS, "disks fit in");

static uint64_t file_number(Node node) {
        switch (node.kind) {
        case NODE_ROOT:
        case NODE_VM:
        case NODE_POINT:
                break;
        case NODE_TRIGGER:
                return FILE_TRIGGER;
        case NODE_LATEST:
                return FILE_LATEST;
        case NODE_INFO:
                return FILE_INFO;
        case NODE_KEPT:
                return node.index == NODE_DOMAIN ? FILE_DOMAIN : FILE_KEPT + (uint64_t) node.index;
        case NODE_RAW:
                return FILE_DISKS + (uint64_t) node.index * DISK_STRIDE;
        case NODE_MAP:
                return FILE_DISKS + (uint64_t) node.index * DISK_STRIDE + OF_DISK_MAP;
        case NODE_CHANGES:
                return FILE_DISKS + (uint64_t) node.index * DISK_STRIDE + OF_DISK_CHANGES;
        case NODE_PARTITION:
                return FILE_DISKS + (uint64_t) node.index * DISK_STRIDE + OF_DISK_PARTITIONS + node.partition;
        }
        return FILE_DIRECTORY;
}

uint64_t node_number(Node node) {
        if (node.kind == NODE_ROOT)
                return NODE_ROOT_NUMBER;
        return ((uint64_t) node.vm << (SERIAL_BITS + FILE_BITS)) | ((uint64_t) node.point << FILE_BITS) | file_number(node);
}

static int decode_in_vm(uint64_t file, Node *node) {
        static const NodeKind kinds[] = {
                [FILE_DIRECTORY] = NODE_VM, [FILE_TRIGGER] = NODE_TRIGGER, [FILE_LATEST] = NODE_LATEST
        };

        if (file >= sizeof kinds / sizeof *kinds)
                return -ESTALE;
        node->kind = kinds[file];
        return 0;
}

static int decode_of_disk(uint64_t file, Node *node) {
        static const NodeKind kinds[] = { NODE_RAW, [OF_DISK_MAP] = NODE_MAP, [OF_DISK_CHANGES] = NODE_CHANGES };
        uint64_t which = file % DISK_STRIDE;

        node->index = (uint32_t) (file / DISK_STRIDE);
        if (which < OF_DISK_PARTITIONS)
                node->kind = kinds[which];
        else {
                node->kind = NODE_PARTITION;
                node->partition = (uint32_t) which - OF_DISK_PARTITIONS;
        }
        return node->index < NODE_DISK_MAX ? 0 : -ESTALE;
}

static int decode_in_point(uint64_t file, Node *node) {
        if (file >= FILE_DISKS)
                return decode_of_disk(file - FILE_DISKS, node);
        if (file == FILE_DIRECTORY)
                node->kind = NODE_POINT;
        else if (file == FILE_INFO)
                node->kind = NODE_INFO;
        else {
                node->kind = NODE_KEPT;
                node->index = file == FILE_DOMAIN ? NODE_DOMAIN : (uint32_t) file - FILE_KEPT;
        }
        return 0;
}

int node_decode(uint64_t number, Node *ret) {
        Node node = {
                .vm = (uint32_t) (number >> (SERIAL_BITS + FILE_BITS)),
                .point = (uint32_t) (number >> FILE_BITS) & ((1u << SERIAL_BITS) - 1),
        };
        uint64_t file = number & ((1u << FILE_BITS) - 1);
        int rc;

        if (number == NODE_ROOT_NUMBER) {
                *ret = (Node) { .kind = NODE_ROOT };
                return 0;
        }
        if (node.vm == 0 || node.vm >> SERIAL_BITS != 0)
                return -ESTALE;
        rc = node.point == 0 ? decode_in_vm(file, &node) : decode_in_point(file, &node);
        if (rc < 0)
                return rc;
        *ret = node;
        return 0;
}

mode_t node_type(NodeKind kind) {
        switch (kind) {
        case NODE_ROOT:
        case NODE_VM:
        case NODE_POINT:
                return S_IFDIR;
        case NODE_LATEST:
                return S_IFLNK;
        default:
                return S_IFREG;
        }
}

bool node_is_image(NodeKind kind) {
        return kind == NODE_RAW || kind == NODE_PARTITION;
}

bool node_is_of_disk(NodeKind kind) {
        return node_is_image(kind) || kind == NODE_MAP || kind == NODE_CHANGES;
}
