/* core/formats/vma/layout.h - the layout of a Proxmox VMA archive, version 1, as far as it is used here.
 *
 *     header | extents, back to back, up to the end of the file
 *
 * Integers are big-endian but for the lengths of blobs. A block has 4096 bytes, a cluster 16 blocks.
 *
 * HEADER
 *      0     4  magic "VMA\0"
 *      4     4  version, 1
 *      8    16  UUID, which each extent repeats
 *     24     8  time of the backup, seconds since 1970
 *     32    16  MD5 of the header, with these bytes zeroed
 *     48     4  offset of the blobs, at least 12288
 *     52     4  bytes of the blobs
 *     56     4  bytes of the header, blobs and all, more than 12288
 *   2044  1024  for each of 256 configuration files, where its name is: offset behind that of the blobs; 0: none
 *   3068  1024                                   and where its content is
 *   4096  8192  256 devices: where the name is (4), 0 (4), size in bytes (8; 0: none), 0 (16)
 * The first byte of the blobs is not used; from the second on, one behind the other: length, 2 bytes, little-endian, and
 * that many bytes. Names end with a NUL that the length counts.
 *
 * EXTENT
 *      0     4  magic "VMAE"
 *      4     2  0
 *      6     2  stored blocks
 *      8    16  the archive's UUID
 *     24    16  MD5 of these 512 bytes, with these zeroed
 *     40   472  59 entries of 8 bytes: 16 bits: which blocks of the cluster are stored, the first in the lowest; 8 bits 0;
 *               8 bits device, 0: an empty entry; 32 bits number of the cluster
 *    512     …  the stored blocks, in the order of the entries
 * What is not stored is zeroes. Each cluster of each device is in the archive once, in any order. The last block of a device
 * is filled up with zeroes. Nothing tells whether the stored blocks are as they were written.
 *
 * The device "vmstate" is the RAM of the VM: its clusters come in order. */
#pragma once

#define VMA_MAGIC "VMA"   /* and the NUL behind it */
#define VMA_VERSION 1
#define VMA_HEADER_SIZE 12288u             /* without the blobs */
#define VMA_HEADER_MAX (16u << 20)         /* with them; what writes archives ends at 512 KiB or 4 MiB */
#define VMA_CONFIG_COUNT 256
#define VMA_DEVICE_COUNT 256
#define VMA_CONFIG_NAMES 2044
#define VMA_CONFIG_DATA 3068
#define VMA_DEVICES 4096
#define VMA_DEVICE_SIZE 32
#define VMA_BLOB_MAX 65535u

#define VMA_EXTENT_MAGIC "VMAE"
#define VMA_EXTENT_HEADER_SIZE 512u
#define VMA_EXTENT_ENTRIES 59
#define VMA_BLOCK_SIZE 4096u
#define VMA_CLUSTER_BLOCKS 16
#define VMA_CLUSTER_SIZE 65536u
#define VMA_EXTENT_BLOCKS_MAX (VMA_EXTENT_ENTRIES * VMA_CLUSTER_BLOCKS)
#define VMA_EXTENT_MAX (VMA_EXTENT_HEADER_SIZE + VMA_EXTENT_BLOCKS_MAX * VMA_BLOCK_SIZE)

#define VMA_UUID_SIZE 16
#define VMA_VMSTATE "vmstate"
