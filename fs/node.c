#include "node.h"

#include <errno.h>
#include <sys/stat.h>

#include "repository/vm.h"

#define FILE_BITS 19
#define DISK_STRIDE 256

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
                return FILE_DISKS + (uint64_t) node.index * DISK_STRIDE + 1;
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

static int decode_in_point(uint64_t file, Node *node) {
        if (file >= FILE_DISKS) {
                uint64_t which = (file - FILE_DISKS) % DISK_STRIDE;

                node->index = (uint32_t) ((file - FILE_DISKS) / DISK_STRIDE);
                node->kind = which == 0 ? NODE_RAW : NODE_MAP;
                return which <= 1 && node->index < NODE_DISK_MAX ? 0 : -ESTALE;
        }
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
