/* fs/mount/node.h - inode numbers: which thing of the mounted tree a number means, decodable without a table.
 *
 *     root: 1
 *     else: [serial of the VM: 22 bits][serial of the point: 22 bits][file: 19 bits]
 *           point 0: of the VM itself: file 0 its directory, 1 the trigger, 2 `latest`
 *           point n: file 0 its directory, 1 domain.xml, 2 info.json, 3 … 63 the other kept files in the manifest's
 *                    order, from 64 on 256 numbers for each disk in the manifest's order: 0 DISK.raw, 1 DISK.map,
 *                    2 DISK.changes, from 3 on its partitions in their table's order
 *
 * Serials are never reused for other VMs, so a number means the same thing over remounts. The numbers end at 63 bits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef enum NodeKind {
        NODE_ROOT,
        NODE_VM,      /* a VM's directory */
        NODE_TRIGGER, /* VM/capture */
        NODE_LATEST,  /* VM/latest */
        NODE_POINT,   /* a point's directory */
        NODE_INFO,    /* POINT/info.json */
        NODE_KEPT,    /* a file kept with the point: domain.xml, … */
        NODE_RAW,     /* POINT/DISK.raw */
        NODE_MAP,     /* POINT/DISK.map */
        NODE_CHANGES, /* POINT/DISK.changes */
        NODE_PARTITION, /* POINT/DISK1.raw */
} NodeKind;

typedef struct Node {
        NodeKind kind;
        uint32_t vm;    /* serials; 0 where the kind has none */
        uint32_t point;
        uint32_t index; /* NODE_KEPT: NODE_DOMAIN, or the place in the manifest's list; those of a disk: the disk's place */
        uint32_t partition; /* NODE_PARTITION: its place in the table */
} Node;

#define NODE_ROOT_NUMBER 1
#define NODE_DOMAIN UINT32_MAX /* domain.xml, wherever the manifest lists it */
#define NODE_KEPT_MAX 61       /* kept files that have a number */
#define NODE_DISK_MAX 2047     /* disks that have one */
#define NODE_PARTITION_MAX 253 /* partitions of a disk that have one */

uint64_t node_number(Node node);

/* -ESTALE for a number that means nothing. */
int node_decode(uint64_t number, Node *ret);

/* S_IFDIR, S_IFREG or S_IFLNK. */
mode_t node_type(NodeKind kind);

/* A disk or a partition: what people mount and copy. */
bool node_is_image(NodeKind kind);
/* DISK.raw, or what else is made of one disk. */
bool node_is_of_disk(NodeKind kind);
